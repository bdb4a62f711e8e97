import type { Ref } from '../../src/provider.ts';
import { factsOf, type VaultFacts } from './handle.ts';
import type { Marked } from './inventory.ts';
import type { Target } from './target.ts';

/** How far clocks may be apart, and how long a request may be on its way. Milliseconds. */
const slackMillis = 10_000;
/** The broker itself allows a mint a minute. */
const mintingMillis = 300_000;

/** When the grant was intended, as its UUIDv7 says; null for another id. */
function intendedAt({ grantId }: Pick<Ref, 'grantId'>): Date | null {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7/i.test(grantId)) return null;
  return new Date(Number.parseInt(grantId.replaceAll('-', '').slice(0, 12), 16));
}

/** When no mint of it can be on its way any more: one that is later than its deadline or its time takes back what it made. */
export function mintedBy(ref: Ref): Date {
  const intended = intendedAt(ref)?.getTime() ?? Number.POSITIVE_INFINITY;
  return new Date(Math.min(ref.deadline.getTime() + slackMillis, intended + mintingMillis));
}

/** Leases issued before are none of this grant's. A minute for the clocks. */
export function leasesSince(ref: Pick<Ref, 'grantId'>): Date {
  return new Date((intendedAt(ref)?.getTime() ?? 60_000) - 60_000);
}

/** Facts as far as a token shows them. Of a lease it shows only where it may stand. */
export function factsShown({ accessor, policies, mark }: Marked, clusterId: string): Omit<VaultFacts, 'digest'> {
  return {
    cluster_id: clusterId,
    accessor,
    mode: mark.mayfly_mode,
    policies: [...policies].sort().join(' '),
    not_after: mark.mayfly_not_after,
    ...(mark.mayfly_path === undefined ? {} : { path: mark.mayfly_path }),
    ...(mark.mayfly_lease_paths === undefined ? {} : { lease_paths: mark.mayfly_lease_paths }),
  };
}

/** Where leases may stand of which only the place is known. */
export function leasePathsOf(facts: Omit<VaultFacts, 'digest'>): readonly string[] {
  const declared = facts.lease_paths?.split(' ') ?? [];
  const { mode, lease_id: lease, path } = facts;
  return mode === 'dynamic' && lease === undefined && path !== undefined ? [...declared, path] : declared;
}

/** The tokens of these grants that are there now, by handle. Several only where a mint was cut short. @throws ProviderError */
export async function findTokens(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, readonly Marked[]>> {
  const lost = new Set(refs.filter((ref) => factsOf(ref) === null).map(({ handle }) => handle));
  const found = new Map<string, Marked[]>();
  if (lost.size === 0) return found;
  for (const one of await target.inventory.read(signal))
    if (lost.has(one.handle)) found.set(one.handle, [...(found.get(one.handle) ?? []), one]);
  return found;
}
