import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Facts, ProviderError, type Ref } from '../../src/provider.ts';

/** `mfy-` and the 32 hex digits of the grant's UUID: it stands in the token's display name, where `_` would become `-`. @throws ProviderError */
export function handleOf(grantId: string): string {
  const hex = grantId.toLowerCase().replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/.test(hex)) throw new ProviderError('misconfigured', 'a grant id must be a UUID');
  return `mfy-${hex}`;
}

/** @throws ProviderError `misconfigured` for a handle that is not one of ours. It becomes part of a path. */
export function assertHandle({ handle, grantId }: Pick<Ref, 'handle' | 'grantId'>): void {
  if (handle !== handleOf(grantId)) throw new ProviderError('misconfigured', 'the handle is not that of the grant');
}

/** What `mint` learnt. Scalars only, and no secret. */
const factsSchema = z.strictObject({
  /** Of all the others and the grant: facts that were mixed up or changed would find nothing, and that would count as gone. */
  digest: z.string(),
  cluster_id: z.string(),
  accessor: z.string().regex(/^[A-Za-z0-9_.-]{1,128}$/),
  mode: z.enum(['token', 'dynamic', 'kv']),
  /** Of the policies that it was given, in order, joined by spaces. */
  policies: z.string(),
  /** The furthest a renewal may reach. */
  not_after: z.iso.datetime(),
  wrapping_accessor: z.string().optional(),
  path: z.string().optional(),
  lease_id: z.string().optional(),
  /** Where what was read outlives its lease or has none: until then it is good. */
  native_expiry: z.iso.datetime().optional(),
  /** Prefixes joined by spaces. */
  lease_paths: z.string().optional(),
});

export type VaultFacts = z.infer<typeof factsSchema>;

type Learnt = Omit<VaultFacts, 'digest'>;

/** Null where a crash lost them. @throws ProviderError `misconfigured` for facts that are not those of this grant. */
export function factsOf(ref: Pick<Ref, 'facts' | 'grantId'>): VaultFacts | null {
  if (ref.facts === null) return null;
  const parsed = factsSchema.safeParse(ref.facts);
  if (!parsed.success) throw new ProviderError('misconfigured', 'the facts are not those of a grant in Vault');
  const { digest, ...learnt } = parsed.data;
  if (digest !== digestOf(ref.grantId, learnt))
    throw new ProviderError('misconfigured', 'the facts are not those that were noted of this grant');
  return parsed.data;
}

export function toFacts(grantId: string, facts: { readonly [K in keyof Learnt]: Learnt[K] | undefined }): Facts {
  const learnt = Object.fromEntries(
    Object.entries(facts).flatMap(([key, value]) => (value === undefined ? [] : [[key, value]])),
  );
  return { ...learnt, digest: digestOf(grantId, learnt) };
}

function digestOf(grantId: string, learnt: Readonly<Record<string, unknown>>): string {
  const entries = Object.entries(learnt).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([grantId, entries]))
    .digest('base64url')
    .slice(0, 22);
}

/** In another cluster behind the same address, absence means nothing. */
export function assertHere(facts: VaultFacts | null, clusterId: string): void {
  if (facts !== null && facts.cluster_id !== clusterId)
    throw new ProviderError(
      'misconfigured',
      `the grant was made in the cluster ${facts.cluster_id}; the address leads to ${clusterId}`,
    );
}

/** The metadata of a token that was made for a grant. */
export const markSchema = z.object({
  mayfly_installation: z.string(),
  mayfly_target: z.string(),
  mayfly_grant: z.string(),
  mayfly_mode: z.enum(['token', 'dynamic', 'kv']),
  mayfly_not_after: z.string(),
  mayfly_path: z.string().optional(),
  mayfly_lease_paths: z.string().optional(),
});
export type Mark = z.infer<typeof markSchema>;

/** The token of one grant. Its secret is in here alone. */
export interface GrantToken {
  readonly accessor: string;
  readonly token: string | null;
  readonly wrapped: { readonly token: string; readonly accessor: string } | null;
  readonly expiresAt: Date;
}
