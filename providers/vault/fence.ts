import { type Outcome, ProviderError, type Ref, within } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle, assertHere, factsOf, type Learnt } from './handle.ts';
import { behind, nameOf, revokeLease } from './leases.ts';
import { factsShown, findTokens, isLost, leasePathsOf, pendingOf, mintedBy, slackMillis, workMillis } from './lost.ts';
import type { StoredNote } from './notes.ts';
import type { Target } from './target.ts';
import { lookUp, revokeAccessor } from './tokens.ts';
import { Unreached } from './transport.ts';

/** Refs at once. */
const width = 8;
/** Milliseconds for the end of one lease. Its neighbours wait as long; Vault goes on with it, since its token has ended. */
const leaseMillis = 3000;
/** Seconds that a token is kept beyond what it is kept for: until it is looked at again. */
const keptSeconds = 600;

/**
 * Cuts access: the token with all that came from it; then the lease, in the system where the credential is good, and waits for that.
 * Of a grant whose facts a crash lost it is noted first that it is ended, which a mint on its way finds; what it is ended by is what
 * its mint has noted, and where that was not so much, its token is looked for.
 * @throws ProviderError when nothing could be tried.
 */
export async function fence(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Outcome[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const run = new Fence(target, clusterId, signal);
  // What has no lease is Vault's own, and fast; it does not wait for systems behind it.
  const waits = (ref: Ref): number => (ref.facts === null || ref.facts['lease_id'] !== undefined ? 1 : 0);
  const jobs = refs.map((ref, index) => ({ ref, index })).sort((a, b) => waits(a.ref) - waits(b.ref));
  await each(jobs, width, ({ ref, index }) => run.note(index, () => run.begin(index, ref)));
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
        run.noteOf(index),
        found.map((one) => factsShown(target, one, clusterId)),
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
  readonly #notes = new Map<number, StoredNote>();
  /** Where a lease did not come to its end in time: what is behind it would keep the others waiting. */
  readonly #hanging = new Set<string>();
  /** How many came to their end, by where they were. */
  readonly #ended = new Map<string, number>();

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

  noteOf(index: number): StoredNote | null {
    return this.#notes.get(index) ?? null;
  }

  /** Ends it by its facts, or by those that its mint has noted; of one that has none it answers that it is pending. */
  async begin(index: number, ref: Ref): Promise<Outcome> {
    const { notes, place, revoking } = this.#target;
    assertHandle(ref, place);
    const facts = factsOf(ref);
    assertHere(facts, this.#clusterId, place);
    if (facts !== null && !isLost(ref)) return await this.#end(ref, facts);
    this.#target.forbid(ref.handle);
    const begins = Date.now() <= mintedBy(this.#target, ref).getTime();
    const note = (await notes?.end(revoking, ref.handle, begins, this.#signal)) ?? null;
    if (note !== null) this.#notes.set(index, note);
    if (note?.facts === undefined) return pending;
    const noted = factsOf({ grantId: ref.grantId, facts: note.facts });
    assertHere(noted, this.#clusterId, place);
    if (noted !== null && note.state === 'reading' && (await this.#keep(ref, note, noted)))
      return { ok: true, evidence: { cluster_id: this.#clusterId, facts: 'noted', read: 'at work', token: 'kept' } };
    const outcome = noted === null ? pending : await this.#end(ref, noted);
    if (note.state === 'reading') await this.#cut(ref, note);
    return outcome.ok ? { ok: true, evidence: { facts: 'noted', ...outcome.evidence } } : outcome;
  }

  /** What of it bears its mark. Where nothing was noted the mark is all that there is. */
  async endFound(ref: Ref, note: StoredNote | null, found: readonly Learnt[]): Promise<Outcome> {
    const shown = note === null ? factsOf(ref) : null;
    const all = shown === null || found.some(({ accessor }) => accessor === shown.accessor) ? found : [shown, ...found];
    const evidence: object[] = [];
    for (const facts of all) {
      const outcome = await this.#end(ref, facts);
      if (!outcome.ok) return outcome;
      evidence.push(outcome.evidence);
    }
    if (note?.state === 'begun') await this.#cut(ref, note);
    return { ok: true, evidence: { cluster_id: this.#clusterId, facts: 'lost', found: evidence } };
  }

  /**
   * What an engine makes for a token that is gone hangs on nothing. So while a read may be at work its token is kept, which nobody has
   * any more and which was good for that one read; what comes of it then goes with the token.
   * @returns whether it is kept now.
   */
  async #keep(ref: Ref, note: StoredNote, { accessor, mode }: Learnt): Promise<boolean> {
    if (mode !== 'dynamic' || note.kept === true) return false;
    const token = await lookUp(this.#target, accessor, this.#signal);
    // One that can still be used twice has not begun to read. One that is gone keeps nothing.
    if (token === null || token.meta?.['mayfly_grant'] !== ref.grantId || token.num_uses !== 1) return false;
    const { notes, revoking } = this.#target;
    const until =
      note.until === undefined ? Date.now() + workMillis(this.#target) + slackMillis : Date.parse(note.until);
    if (Date.now() > until) {
      await notes?.settle(revoking, ref.handle, () => ({ kept: true }), this.#signal);
      return false;
    }
    const increment = `${Math.ceil((until - Date.now()) / 1000) + keptSeconds}s`;
    const call = { method: 'POST', path: 'auth/token/renew-accessor', data: { accessor, increment } } as const;
    const renewed = await revoking.call('keeping a token', call, this.#signal, [200, 400, 404, 500]);
    // Then as one that is gone.
    if (renewed.status !== 200) return false;
    await this.#cut(ref, note);
    return true;
  }

  /** Its token is gone, or is kept. What it had begun in Vault before is at work for no longer than Vault works on anything. */
  async #cut(ref: Ref, note: StoredNote): Promise<void> {
    if (note.until !== undefined) return;
    const until = new Date(Date.now() + workMillis(this.#target) + slackMillis).toISOString();
    const { notes, revoking } = this.#target;
    await notes?.settle(revoking, ref.handle, (now) => ({ until: now.until ?? until }), this.#signal);
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
        ...(lease === undefined ? {} : { lease: nameOf(lease), lease_end: 'revoked' }),
        ...(undelivered === null ? {} : { wrapping: undelivered ? 'revoked' : 'absent' }),
      },
    };
  }

  async #endLease(lease: string): Promise<ProviderError | null> {
    const path = behind(lease);
    if (this.#hanging.has(path))
      return new ProviderError('retryable', `revoking a lease: what is behind ${path} hangs`);
    const ended = (): number => this.#ended.get(path) ?? 0;
    const before = ended();
    try {
      await revokeLease(this.#target, lease, within(leaseMillis, this.#signal));
      this.#ended.set(path, ended() + 1);
      return null;
    } catch (error) {
      if (!(error instanceof Unreached)) return failed(error);
      // Vault ends one at a time behind a connection: this one has only waited for those.
      if (ended() > before && !this.#signal.aborted) return await this.#endLease(lease);
      this.#hanging.add(path);
      // Vault itself answers: of the target as a whole this says nothing.
      return new ProviderError('retryable', `revoking a lease: ${error.message}`);
    }
  }

  /** Those that the token leaves to Vault's queue. They are to be gone whosever they are, so that to hurry them harms nobody. */
  async #endPending(ref: Ref, paths: readonly string[]): Promise<void> {
    for (const lease of await pendingOf(this.#target, ref, paths, this.#signal)) {
      const fault = await this.#endLease(lease);
      if (fault !== null) throw fault;
    }
  }
}
