import { type Outcome, ProviderError, type Ref, within } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle, assertHere, factsOf, type VaultFacts } from './handle.ts';
import type { Marked } from './inventory.ts';
import { pendingUnder, revokeLease } from './leases.ts';
import { factsShown, findTokens, leasePathsOf, leasesSince } from './lost.ts';
import type { Target } from './target.ts';
import { lookUp, revokeAccessor } from './tokens.ts';

/** Refs at once. */
const width = 8;
/** Milliseconds for the end of one lease, in the system that it is about: its token is ended all the same. */
const leaseMillis = 9000;

/**
 * Cuts access: the lease in the system where the credential is good, and waits for that; then the token with all that came from it.
 * Of a grant whose facts a crash lost a note is left first, which a mint on its way finds, and then its token is looked for.
 * @throws ProviderError when nothing could be tried.
 */
export async function fence(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const outcomes = new Map<number, Outcome>();
  const note = (index: number, work: () => Promise<Outcome>): Promise<void> =>
    work().then(
      (outcome) => void outcomes.set(index, outcome),
      (error: unknown) => void outcomes.set(index, { ok: false, error: failed(error) }),
    );
  const lost: Ref[] = [];
  await each(refs, width, (ref, index) =>
    note(index, async () => {
      assertHandle(ref);
      const facts = factsOf(ref);
      assertHere(facts, clusterId);
      if (facts !== null) return await end(target, ref, facts, signal);
      await target.record?.noteEnded(target.revoking, ref.handle, {}, signal);
      lost.push(ref);
      return pending;
    }),
  );
  const tokens = findTokens(target, lost, signal);
  await each(refs, width, async (ref, index) => {
    if (outcomes.get(index) === pending)
      await note(
        index,
        async () => await endFound(target, ref, (await tokens).get(ref.handle) ?? [], clusterId, signal),
      );
  });
  return refs.map((_, index) => outcomes.get(index) ?? { ok: false, error: failed(undefined) });
}

const pending: Outcome = { ok: false, error: new ProviderError('retryable', 'ending: the grant was not reached') };

function failed(error: unknown): ProviderError {
  return error instanceof ProviderError ? error : new ProviderError('retryable', 'ending: it failed');
}

/** What a crash left of it. */
async function endFound(
  target: Target,
  ref: Ref,
  tokens: readonly Marked[],
  clusterId: string,
  signal: AbortSignal,
): Promise<Outcome> {
  const evidence: object[] = [];
  for (const token of tokens) {
    const facts = factsShown(token, clusterId);
    // Once the token is gone nothing tells where it may have left leases.
    await target.record?.noteEnded(target.revoking, ref.handle, { lease_paths: leasePathsOf(facts).join(' ') }, signal);
    const outcome = await end(target, ref, facts, signal);
    if (!outcome.ok) return outcome;
    evidence.push(outcome.evidence);
  }
  return { ok: true, evidence: { cluster_id: clusterId, facts: 'lost', found: evidence } };
}

async function end(target: Target, ref: Ref, facts: Omit<VaultFacts, 'digest'>, signal: AbortSignal): Promise<Outcome> {
  const known = await lookUp(target, facts.accessor, signal);
  if (known !== null && known.meta?.['mayfly_grant'] !== ref.grantId)
    throw new ProviderError(
      'misconfigured',
      'ending: the accessor is that of a token without our mark: a person must look',
    );
  const { wrapping_accessor: wrapping, lease_id: lease } = facts;
  const undelivered = wrapping === undefined ? null : await revokeAccessor(target, wrapping, signal);
  // Both are tried, whatever becomes of the first.
  const leaseFault = lease === undefined ? null : await tried(revokeLease(target, lease, within(leaseMillis, signal)));
  const revoked = known === null ? false : await revokeAccessor(target, facts.accessor, signal);
  const queueFault = await tried(endPending(target, ref, leasePathsOf(facts), within(leaseMillis, signal)));
  const fault = leaseFault ?? queueFault;
  if (fault !== null) return { ok: false, error: fault };
  return {
    ok: true,
    evidence: {
      ...{ cluster_id: facts.cluster_id, accessor: facts.accessor, token: revoked ? 'revoked' : 'absent' },
      ...(lease === undefined ? {} : { lease, lease_end: 'revoked' }),
      ...(undelivered === null ? {} : { wrapping: undelivered ? 'revoked' : 'absent' }),
    },
  };
}

/** Those that the token leaves to Vault's queue. They are to be gone whosever they are, so that to hurry them harms nobody. */
async function endPending(target: Target, ref: Ref, paths: readonly string[], signal: AbortSignal): Promise<void> {
  for (const path of paths)
    for (const lease of await pendingUnder(target, path, leasesSince(ref), signal))
      await revokeLease(target, lease, signal);
}

async function tried(work: Promise<void>): Promise<ProviderError | null> {
  return await work.then(
    () => null,
    (error: unknown) => failed(error),
  );
}
