import { type Outcome, ProviderError, type Ref, within } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle, assertHere, factsOf, type VaultFacts } from './handle.ts';
import { pendingUnder, revokeLease } from './leases.ts';
import { factsShown, findTokens, leasePathsOf, leasesSince } from './lost.ts';
import type { Target } from './target.ts';
import { lookUp, revokeAccessor } from './tokens.ts';
import { Unreached } from './transport.ts';

/** Refs at once. */
const width = 8;
/** Milliseconds for the end of one lease. Its neighbours wait as long; Vault goes on with it, since its token has ended. */
const leaseMillis = 3000;

type Learnt = Omit<VaultFacts, 'digest'>;

/**
 * Cuts access: the token with all that came from it; then the lease, in the system where the credential is good, and waits for that.
 * Of a grant whose facts a crash lost a note is left first, which a mint on its way finds, and then its token is looked for.
 * @throws ProviderError when nothing could be tried.
 */
export async function fence(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const run = new Fence(target, clusterId, signal);
  // What has no lease is Vault's own, and fast; it does not wait for systems behind it.
  const waits = (ref: Ref): number => (ref.facts === null || ref.facts['lease_id'] !== undefined ? 1 : 0);
  const jobs = refs.map((ref, index) => ({ ref, index })).sort((a, b) => waits(a.ref) - waits(b.ref));
  await each(jobs, width, ({ ref, index }) => run.note(index, () => run.begin(ref)));
  const lost = jobs.filter(({ index }) => run.outcome(index) === pending);
  const tokens = findTokens(
    target,
    lost.map(({ ref }) => ref),
    signal,
  );
  // Each that needs it says so.
  tokens.catch(() => {});
  await each(lost, width, ({ ref, index }) =>
    run.note(index, async () => {
      const found = (await tokens).get(ref.handle) ?? [];
      return await run.endFound(
        ref,
        found.map((one) => factsShown(one, clusterId)),
      );
    }),
  );
  return refs.map((_, index) => run.outcome(index));
}

const pending: Outcome = { ok: false, error: new ProviderError('retryable', 'ending: the grant was not reached') };

function failed(error: unknown): ProviderError {
  return error instanceof ProviderError ? error : new ProviderError('retryable', 'ending: it failed');
}

/** One batch on its way. */
class Fence {
  readonly #target: Target;
  readonly #clusterId: string;
  readonly #signal: AbortSignal;
  readonly #outcomes = new Map<number, Outcome>();
  /** Where a lease did not come to its end in time: what is behind it would keep the others waiting. */
  readonly #hanging = new Set<string>();

  constructor(target: Target, clusterId: string, signal: AbortSignal) {
    this.#target = target;
    this.#clusterId = clusterId;
    this.#signal = signal;
  }

  outcome(index: number): Outcome {
    return this.#outcomes.get(index) ?? pending;
  }

  async note(index: number, work: () => Promise<Outcome>): Promise<void> {
    try {
      this.#outcomes.set(index, await work());
    } catch (error) {
      this.#outcomes.set(index, { ok: false, error: failed(error) });
    }
  }

  /** Ends it by its facts; of one that has none only notes that it is ended, and answers that it is pending. */
  async begin(ref: Ref): Promise<Outcome> {
    assertHandle(ref);
    const facts = factsOf(ref);
    assertHere(facts, this.#clusterId);
    if (facts !== null) return await this.#end(ref, facts);
    this.#target.forbid(ref.handle);
    await this.#target.record?.noteEnded(this.#target.revoking, ref.handle, this.#signal);
    return pending;
  }

  /** What a crash left of it, and what an earlier fence has found of it. */
  async endFound(ref: Ref, found: readonly Learnt[]): Promise<Outcome> {
    const { record, revoking } = this.#target;
    const before = await record?.findEnded(revoking, ref.handle, this.#signal);
    const paths = new Set([...(before?.leasePaths ?? []), ...found.flatMap((facts) => leasePathsOf(facts))]);
    // Once the token is gone nothing else tells where it may have left leases.
    if (paths.size > 0) await record?.notePaths(revoking, ref.handle, [...paths], this.#signal);
    const evidence: object[] = [];
    for (const facts of found) {
      const outcome = await this.#end(ref, facts);
      if (!outcome.ok) return outcome;
      evidence.push(outcome.evidence);
    }
    await this.#endPending(ref, [...paths]);
    return { ok: true, evidence: { cluster_id: this.#clusterId, facts: 'lost', found: evidence } };
  }

  async #end(ref: Ref, facts: Learnt): Promise<Outcome> {
    const known = await lookUp(this.#target, facts.accessor, this.#signal);
    if (known !== null && known.meta?.['mayfly_grant'] !== ref.grantId)
      throw new ProviderError(
        'misconfigured',
        'ending: the accessor is of a token without our mark: a person must look',
      );
    const { wrapping_accessor: wrapping, lease_id: lease } = facts;
    const undelivered = wrapping === undefined ? null : await revokeAccessor(this.#target, wrapping, this.#signal);
    // The token first: while a lease is on its way to a system that hangs, Vault keeps its token waiting too (measured).
    const revoked = known === null ? false : await revokeAccessor(this.#target, facts.accessor, this.#signal);
    const leaseFault = lease === undefined ? null : await this.#endLease(lease);
    await this.#endPending(ref, leasePathsOf(facts));
    if (leaseFault !== null) return { ok: false, error: leaseFault };
    return {
      ok: true,
      evidence: {
        ...{ cluster_id: facts.cluster_id, accessor: facts.accessor, token: revoked ? 'revoked' : 'absent' },
        ...(lease === undefined ? {} : { lease, lease_end: 'revoked' }),
        ...(undelivered === null ? {} : { wrapping: undelivered ? 'revoked' : 'absent' }),
      },
    };
  }

  async #endLease(lease: string): Promise<ProviderError | null> {
    const behind = lease.slice(0, lease.lastIndexOf('/'));
    if (this.#hanging.has(behind))
      return new ProviderError('retryable', `revoking a lease: what is behind ${behind} hangs`);
    try {
      await revokeLease(this.#target, lease, within(leaseMillis, this.#signal));
      return null;
    } catch (error) {
      if (!(error instanceof Unreached)) return failed(error);
      this.#hanging.add(behind);
      // Vault itself answers: of the target as a whole this says nothing.
      return new ProviderError('retryable', `revoking a lease: ${error.message}`);
    }
  }

  /** Those that the token leaves to Vault's queue. They are to be gone whosever they are, so that to hurry them harms nobody. */
  async #endPending(ref: Ref, paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      for (const lease of await pendingUnder(this.#target, path, leasesSince(ref), this.#signal)) {
        const fault = await this.#endLease(lease);
        if (fault !== null) throw fault;
      }
    }
  }
}
