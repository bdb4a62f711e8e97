import { type Evidence, ProviderError, type Ref, type Verdict } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle, assertHere, factsOf, type VaultFacts } from './handle.ts';
import type { Marked } from './inventory.ts';
import { lookUpLease, pendingUnder } from './leases.ts';
import { findTokens, leasePathsOf, leasesSince, mintedBy } from './lost.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';

/** Refs at once. */
const width = 8;
/** How far clocks may be apart where nothing but the end of its own time takes a credential away. */
const skewMillis = 5000;

/**
 * Looks at the token by its accessor and at each lease by its id, in the cluster that the facts name. That a token is gone says
 * nothing of its leases: Vault only queues those, and may give up on them; such a lease is still there.
 * @throws ProviderError when nothing could be asked.
 */
export async function verify(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const verdicts = new Map<number, Verdict>();
  const readable = refs.filter((ref) => isReadable(ref));
  // A failure to list is that of each that needs the list.
  const tokens = findTokens(target, readable, signal);
  tokens.catch(() => {});
  await each(refs, width, async (ref, index) => {
    try {
      assertHandle(ref);
      const facts = factsOf(ref);
      assertHere(facts, clusterId);
      const verdict =
        facts === null
          ? await judgeLost(target, ref, (await tokens).get(ref.handle) ?? [], clusterId, signal)
          : await judge(target, ref, facts, signal);
      verdicts.set(index, verdict);
    } catch (error) {
      const failed = error instanceof ProviderError ? error : new ProviderError('retryable', 'verifying: it failed');
      verdicts.set(index, { ok: false, error: failed });
    }
  });
  return refs.map(
    (_, index) =>
      verdicts.get(index) ?? { ok: false, error: new ProviderError('retryable', 'verifying: it was not reached') },
  );
}

function isReadable(ref: Ref): boolean {
  try {
    factsOf(ref);
    return true;
  } catch {
    return false;
  }
}

async function judge(target: Target, ref: Ref, facts: VaultFacts, signal: AbortSignal): Promise<Verdict> {
  const { lease_id: lease, wrapping_accessor: wrapping, native_expiry: expiry } = facts;
  const token = await lookUp(target, facts.accessor, signal);
  if (token !== null && token.meta?.['mayfly_grant'] !== ref.grantId)
    throw new ProviderError('misconfigured', 'verifying: the accessor is that of a token without our mark');
  const leased = lease === undefined ? null : await lookUpLease(target, lease, signal);
  const wrapped = wrapping === undefined ? null : await lookUp(target, wrapping, signal);
  const pending = await pendingOf(target, ref, leasePathsOf(facts), token === null, signal);
  const waits = expiry !== undefined && Date.now() < new Date(expiry).getTime() + skewMillis;
  const contained = token === null && leased === null && wrapped === null && pending.length === 0 && !waits;
  const evidence: Evidence = {
    ...{ cluster_id: facts.cluster_id, accessor: facts.accessor, token: token === null ? 'absent' : 'present' },
    ...(lease === undefined ? {} : { lease, lease_state: stateOf(leased) }),
    ...(wrapping === undefined ? {} : { wrapping: wrapped === null ? 'absent' : 'present' }),
    ...(pending.length === 0 ? {} : { leases_pending: pending.slice(0, 20) }),
    ...(expiry === undefined ? {} : { native_expiry: expiry }),
  };
  return { ok: true, contained, clean: contained, open: !contained, evidence };
}

/** One that Vault has as over is still good where it was given for, until Vault has taken it away there. */
function stateOf(lease: { readonly ttl: number } | null): string {
  if (lease === null) return 'absent';
  return lease.ttl > 0 ? 'alive' : 'over, and not taken away yet';
}

async function judgeLost(
  target: Target,
  ref: Ref,
  tokens: readonly Marked[],
  clusterId: string,
  signal: AbortSignal,
): Promise<Verdict> {
  const ended = (await target.record?.findEnded(target.revoking, ref.handle, signal)) ?? null;
  const pending = await pendingOf(target, ref, ended?.leasePaths ?? [], tokens.length === 0, signal);
  // Without a note a mint on its way could still make one. Without a record there are no notes, and nothing tells what was left.
  const nothingInFlight = ended !== null || (target.record !== null && Date.now() > mintedBy(ref).getTime());
  const contained = tokens.length === 0 && pending.length === 0 && nothingInFlight;
  return {
    ok: true,
    ...{ contained, clean: contained, open: tokens.length > 0 || pending.length > 0 },
    evidence: {
      ...{ cluster_id: clusterId, facts: 'lost', token: tokens.length === 0 ? 'absent' : 'present' },
      ...{ noted: ended !== null, leases_pending: pending.slice(0, 20) },
    },
  };
}

/** While the token lives its leases are no one's to count: it is not contained anyway. */
async function pendingOf(
  target: Target,
  ref: Ref,
  paths: readonly string[],
  tokenGone: boolean,
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (!tokenGone) return [];
  const found: string[] = [];
  for (const path of paths) found.push(...(await pendingUnder(target, path, leasesSince(ref), signal)));
  return found;
}
