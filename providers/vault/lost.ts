import type { Ref } from '../../src/provider.ts';
import { factsOf, type Learnt } from './handle.ts';
import type { Marked } from './inventory.ts';
import { leasesUnder, pendingUnder } from './leases.ts';
import type { Target } from './target.ts';

/** How far clocks may be apart, and how long a request may be on its way. Milliseconds. */
export const slackMillis = 10_000;
/** The broker itself allows a mint a minute. */
const mintingMillis = 300_000;
/** Seconds that such a request may be on its way to Vault. */
const waySeconds = 5;

/** How long what was asked of Vault may be at work there. Milliseconds. */
export function workMillis({ config }: Target): number {
  return (config.max_request_seconds + waySeconds) * 1000;
}

/** When the grant was intended, as its UUIDv7 says; null for another id. */
function intendedAt({ grantId }: Pick<Ref, 'grantId'>): Date | null {
  if (!/^[0-9a-f]{8}-[0-9a-f]{4}-7/i.test(grantId)) return null;
  return new Date(Number.parseInt(grantId.replaceAll('-', '').slice(0, 12), 16));
}

/** When no mint of it can begin any more, nor the note that it writes first be on its way. */
export function mintedBy(target: Target, ref: Pick<Ref, 'grantId' | 'deadline'>): Date {
  const intended = intendedAt(ref)?.getTime() ?? Number.POSITIVE_INFINITY;
  const last = Math.min(ref.deadline.getTime() + slackMillis, intended + mintingMillis);
  return new Date(last + target.config.request_timeout_seconds * 1000);
}

/** Leases issued before are none of this grant's. A minute for the clocks. */
function leasesSince(ref: Pick<Ref, 'grantId'>): Date {
  return new Date((intendedAt(ref)?.getTime() ?? 60_000) - 60_000);
}

/** Whether only a note, or the metadata of a token, tells what was made of it. @throws ProviderError for facts of another grant. */
export function isLost(ref: Ref): boolean {
  const facts = factsOf(ref);
  return facts === null || facts.shown === true;
}

/** Facts as far as a token shows them. Of a lease it shows only where it may stand. */
export function factsShown({ config, place }: Target, { accessor, policies, mark }: Marked, clusterId: string): Learnt {
  return {
    cluster_id: clusterId,
    ...{ namespace: place.namespace, role: config.token_role, accessor, mode: mark.mayfly_mode, shown: true },
    policies: [...policies].sort().join(' '),
    not_after: mark.mayfly_not_after,
    ...(mark.mayfly_path === undefined ? {} : { path: mark.mayfly_path }),
    ...(mark.mayfly_lease_paths === undefined ? {} : { lease_paths: mark.mayfly_lease_paths }),
    ...(mark.mayfly_open_until === undefined ? {} : { open_until: mark.mayfly_open_until }),
  };
}

/** Where leases may stand of which only the place is known. */
export function leasePathsOf(facts: Learnt): readonly string[] {
  const declared = facts.lease_paths?.split(' ') ?? [];
  const { mode, lease_id: lease, path } = facts;
  return mode === 'dynamic' && lease === undefined && path !== undefined ? [...declared, path] : declared;
}

/**
 * Leases under these paths that are to be gone and are not, but for those that are known to be another grant's.
 * @throws ProviderError
 */
export async function pendingOf(
  target: Target,
  ref: Ref,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const found: string[] = [];
  for (const path of paths) found.push(...(await pendingUnder(target, path, leasesSince(ref), signal)));
  return await butOthers(target, ref, found, signal);
}

async function butOthers(
  target: Target,
  ref: Ref,
  leases: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (leases.length === 0 || target.notes === null) return leases;
  const others = await target.notes.leasesBut(target.revoking, ref.handle, signal);
  return leases.filter((lease) => !others.has(lease));
}

/**
 * Leases that a read may have left which broke off: of the path, issued since, and no other grant's that is known. Whether one that
 * is still good is ours or a stranger's nothing tells, so that it is not ended, and is waited for.
 * @param until Later than that its read was not at work any more.
 * @throws ProviderError
 */
export async function unaccounted(
  target: Target,
  ref: Ref,
  path: string,
  until: Date,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const last = until.getTime() + slackMillis;
  const leases = (await leasesUnder(target, path, leasesSince(ref), signal)).filter(
    ({ issue_time: issued }) => new Date(issued).getTime() <= last,
  );
  return await butOthers(
    target,
    ref,
    leases.map(({ id }) => id),
    signal,
  );
}

/** The tokens of these grants that are there now, by handle. Several only where a mint was cut short. @throws ProviderError */
export async function findTokens(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, readonly Marked[]>> {
  const lost = new Set(refs.map(({ handle }) => handle));
  const found = new Map<string, Marked[]>();
  if (lost.size === 0) return found;
  for (const one of await target.inventory.read(signal, target.revoking))
    if (lost.has(one.handle)) found.set(one.handle, [...(found.get(one.handle) ?? []), one]);
  return found;
}
