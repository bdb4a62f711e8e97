import { createHash } from 'node:crypto';
import { z } from 'zod';
import { type Facts, ProviderError, type Ref } from '../../src/provider.ts';

/** Where in one cluster a grant is made: there alone its absence means anything. */
export interface Place {
  /** Empty for that of the root. */
  readonly namespace: string;
  readonly role: string;
  /** Empty where the target keeps none. */
  readonly record: string;
}

/**
 * `mfy-`, the 32 hex digits of the grant's UUID, `-`, and a digest of the place: it stands in the token's display name, where `_` would
 * become `-`. What was intended at one place is so never looked for at another. @throws ProviderError
 */
export function handleOf(grantId: string, { namespace, role, record }: Place): string {
  const place = createHash('sha256')
    .update(JSON.stringify([namespace, role, record]))
    .digest('hex');
  return `${beginOf(grantId)}-${place.slice(0, 10)}`;
}

/** All that handles were before places were told. @throws ProviderError */
export function beginOf(grantId: string): string {
  const hex = grantId.toLowerCase().replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/.test(hex)) throw new ProviderError('misconfigured', 'a grant id must be a UUID');
  return `mfy-${hex}`;
}

/**
 * It becomes part of a path. By its facts, which tell the place, a grant is found from a handle of another place, and from one of
 * before places were told. @throws ProviderError `misconfigured` for a handle that is not of this grant, or is of another place.
 */
export function assertHandle(
  { handle, grantId, facts }: Pick<Ref, 'handle' | 'grantId' | 'facts'>,
  place: Place,
): void {
  if (handle === handleOf(grantId, place)) return;
  const begin = beginOf(grantId);
  if (handle !== begin && !(handle.startsWith(begin) && /^-[0-9a-f]{10}$/.test(handle.slice(begin.length))))
    throw new ProviderError('misconfigured', 'the handle is not that of the grant');
  if (facts === null)
    throw new ProviderError(
      'misconfigured',
      'the grant was intended at another place (namespace, token_role or record): here its absence proves nothing',
    );
}

/** What `mint` learnt. Scalars only, and no secret. */
const factsSchema = z.strictObject({
  /** Of all the others and the grant: facts that were mixed up or changed would find nothing, and that would count as gone. */
  digest: z.string(),
  cluster_id: z.string(),
  /** Absent in what was made before these were told. */
  namespace: z.string().optional(),
  role: z.string().optional(),
  accessor: z.string().regex(/^[A-Za-z0-9_.-]{1,128}$/),
  mode: z.enum(['token', 'dynamic', 'kv']),
  /** Of the policies that it was given, in order, joined by spaces. */
  policies: z.string(),
  /** The furthest a renewal may reach. */
  not_after: z.iso.datetime(),
  wrapping_accessor: z.string().optional(),
  path: z.string().optional(),
  lease_id: z.string().optional(),
  /** When the lease ends by itself, in the system where it is good too if that can be told there. */
  lease_until: z.iso.datetime().optional(),
  /** Where what was read outlives its lease or has none: until then it is good. */
  native_expiry: z.iso.datetime().optional(),
  /** Prefixes joined by spaces. */
  lease_paths: z.string().optional(),
  /** That a note of it stands until it is clean: without that, Vault has forgotten what came after some backup. */
  noted: z.literal(true).optional(),
  /** Only what a token shows, which is not all: whoever finds it so asks the note. */
  shown: z.literal(true).optional(),
  /** Of what is only shown: until then what was handed out may be good with the token and all leases gone. */
  open_until: z.iso.datetime().optional(),
});

export type VaultFacts = z.infer<typeof factsSchema>;

export type Learnt = Omit<VaultFacts, 'digest'>;

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

/** In another cluster behind the same address, and in another namespace of it, absence means nothing. */
export function assertHere(facts: Learnt | null, clusterId: string, place: Place): void {
  if (facts === null) return;
  if (facts.cluster_id !== clusterId)
    throw new ProviderError(
      'misconfigured',
      `the grant was made in the cluster ${facts.cluster_id}; the address leads to ${clusterId}`,
    );
  const { namespace, role } = facts;
  if ((namespace ?? place.namespace) !== place.namespace || (role ?? place.role) !== place.role)
    throw new ProviderError(
      'misconfigured',
      `the grant was made in the namespace “${namespace ?? ''}” by the role ${role ?? ''}; the connection now names “${place.namespace}” and ${place.role}`,
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
  mayfly_handle: z.string().optional(),
  /** Until when what is handed out may be good with the token gone. */
  mayfly_open_until: z.iso.datetime().optional(),
});
export type Mark = z.infer<typeof markSchema>;

/** The token of one grant. Its secret is in here alone. */
export interface GrantToken {
  readonly accessor: string;
  readonly token: string | null;
  readonly wrapped: { readonly token: string; readonly accessor: string } | null;
  readonly expiresAt: Date;
}
