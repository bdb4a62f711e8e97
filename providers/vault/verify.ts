import { type Evidence, ProviderError, type Ref, type Verdict } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle, assertHere, factsOf, type Learnt } from './handle.ts';
import type { Marked } from './inventory.ts';
import { lookUpLease, nameOf } from './leases.ts';
import { findTokens, isLost, leasePathsOf, mintedBy, pendingOf, unaccounted } from './lost.ts';
import type { StoredNote } from './notes.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';

/** Refs at once. */
const width = 8;
/** How far clocks may be apart where nothing but the end of its own time takes a credential away. */
const skewMillis = 5000;
/** Leases that evidence names. */
const mostNamed = 20;

/** What one batch has in common. */
interface Run {
  readonly target: Target;
  readonly clusterId: string;
  readonly signal: AbortSignal;
  /** Those of the grants that lost their facts. Asked for once, and only when one needs them. */
  readonly tokens: () => Promise<ReadonlyMap<string, readonly Marked[]>>;
}

/**
 * Looks at the token by its accessor and at each lease by its id, in the cluster that the facts name. That a token is gone says
 * nothing of its leases: Vault only queues those, and may give up on them; such a lease is still there.
 * @throws ProviderError when nothing could be asked.
 */
export async function verify(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const verdicts = new Map<number, Verdict>();
  let listed: ReturnType<Run['tokens']> | undefined;
  const tokens = (): ReturnType<Run['tokens']> => {
    listed ??= findTokens(target, refs, signal);
    return listed;
  };
  const run: Run = { target, clusterId, signal, tokens };
  await each(refs, width, async (ref, index) => {
    try {
      assertHandle(ref, target.place);
      const facts = factsOf(ref);
      assertHere(facts, clusterId, target.place);
      verdicts.set(
        index,
        facts === null || isLost(ref) ? await judgeLost(run, ref, facts) : await judge(run, ref, facts),
      );
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

async function judge(run: Run, ref: Ref, facts: Learnt, kept = false): Promise<Verdict> {
  const { target, signal } = run;
  const { lease_id: lease, wrapping_accessor: wrapping, native_expiry: expiry } = facts;
  const token = await ownToken(run, ref, facts);
  const leased = lease === undefined ? null : await lookUpLease(target, lease, signal);
  const wrapped = wrapping === undefined ? null : await lookUp(target, wrapping, signal);
  const pending = token === null ? await pendingOf(target, ref, leasePathsOf(facts), signal) : [];
  const forgotten = token === null && leased === null && !kept && (await isForgotten(run, ref, facts));
  const open = forgotten ? later(expiry, facts.lease_until) : later(expiry, facts.open_until);
  const waits = open !== undefined && Date.now() < new Date(open).getTime() + skewMillis;
  const contained = token === null && leased === null && wrapped === null && pending.length === 0 && !waits;
  const evidence: Evidence = {
    ...{ cluster_id: facts.cluster_id, accessor: facts.accessor, token: token === null ? 'absent' : 'present' },
    ...(lease === undefined ? {} : { lease: nameOf(lease), lease_state: stateOf(leased) }),
    ...(wrapping === undefined ? {} : { wrapping: wrapped === null ? 'absent' : 'present' }),
    ...pendingEvidence(pending),
    ...(expiry === undefined ? {} : { native_expiry: expiry }),
    ...(facts.open_until === undefined ? {} : { open_until: facts.open_until }),
    ...(forgotten ? { restored: 'Vault has forgotten the grant itself: it is waited for the end of its lease' } : {}),
  };
  return { ok: true, contained, clean: contained, open: !contained, evidence };
}

async function ownToken({ target, signal }: Run, ref: Ref, { accessor }: Learnt): Promise<object | null> {
  const token = await lookUp(target, accessor, signal);
  if (token !== null && token.meta?.['mayfly_grant'] !== ref.grantId)
    throw new ProviderError('misconfigured', 'verifying: the accessor is that of a token without our mark');
  return token;
}

/**
 * Of what had a lease there is a note until it is clean. Where that is gone too Vault was set back to before the grant: it would say
 * of any lease that there is none, and the credential lives on in the system where it is good.
 */
async function isForgotten({ target, signal }: Run, ref: Ref, facts: Learnt): Promise<boolean> {
  const { notes, revoking } = target;
  if (facts.noted !== true || facts.lease_until === undefined || notes === null) return false;
  if (target.isReaped(ref.handle)) return false;
  return (await notes.find(revoking, ref.handle, signal)) === null;
}

function later(one: string | undefined, other: string | undefined): string | undefined {
  if (one === undefined || other === undefined) return one ?? other;
  return new Date(one) > new Date(other) ? one : other;
}

/** One that Vault has as over is still good where it was given for, until Vault has taken it away there. */
function stateOf(lease: { readonly ttl: number } | null): string {
  if (lease === null) return 'absent';
  return lease.ttl > 0 ? 'alive' : 'over, and not taken away yet';
}

/** By what its mint has noted; by what its token shows where there is no note. */
async function judgeLost(run: Run, ref: Ref, shown: Learnt | null): Promise<Verdict> {
  const { target, signal } = run;
  const note = (await target.notes?.find(target.revoking, ref.handle, signal)) ?? null;
  if (note === null) return shown === null ? await judgeUnnoted(run, ref) : await judge(run, ref, shown, true);
  const facts = note.facts === undefined ? null : factsOf({ grantId: ref.grantId, facts: note.facts });
  assertHere(facts, run.clusterId, target.place);
  const verdict = await judgeNoted(run, ref, note, facts);
  // Until its end is noted a mint on its way may take the next step.
  if (!verdict.ok || note.ended) return verdict;
  return { ...verdict, contained: false, clean: false, evidence: { ...verdict.evidence, noted: 'not ended' } };
}

async function judgeNoted(run: Run, ref: Ref, note: StoredNote, facts: Learnt | null): Promise<Verdict> {
  const { state, until } = note;
  const over = until !== undefined && Date.now() > new Date(until).getTime();
  if (facts === null) {
    const verdict = await judgeFound(run, ref, true, state);
    // A token that comes later is nobody's: none was handed out. It is looked for once more before it is clean.
    return verdict.ok && state === 'begun' ? { ...verdict, clean: verdict.contained && over } : verdict;
  }
  if (state === 'made') return await judge(run, ref, facts, true);
  // Nothing was handed out, so that nothing is good until it expires.
  const { native_expiry: _, ...held } = facts;
  if (state !== 'reading') return await judge(run, ref, held, true);
  const verdict = await judge(run, ref, held, true);
  if (!verdict.ok || facts.mode !== 'dynamic' || facts.path === undefined) return verdict;
  // Its read may still be at work, and what comes of it would hang on no token.
  const unknown = until !== undefined && note.kept !== true;
  const left = !unknown ? [] : await unaccounted(run.target, ref, facts.path, new Date(until), run.signal);
  const contained = verdict.contained && over && left.length === 0;
  return {
    ...verdict,
    ...{ contained, clean: contained, open: verdict.open === true || left.length > 0 },
    evidence: { ...verdict.evidence, read: 'broken off', ...(until && { until }), ...pendingEvidence(left) },
  };
}

async function judgeUnnoted(run: Run, ref: Ref): Promise<Verdict> {
  // A mint on its way could still begin, and would note it first. Without a record there are no notes, and nothing tells what was left.
  const nothingComes = run.target.notes !== null && Date.now() > mintedBy(run.target, ref).getTime();
  return await judgeFound(run, ref, nothingComes, 'absent');
}

async function judgeFound(run: Run, ref: Ref, nothingComes: boolean, noted: string): Promise<Verdict> {
  const tokens = (await run.tokens()).get(ref.handle) ?? [];
  const contained = tokens.length === 0 && nothingComes && run.target.record?.wentBack !== true;
  return {
    ok: true,
    ...{ contained, clean: contained, open: tokens.length > 0 },
    evidence: {
      ...{ cluster_id: run.clusterId, facts: 'lost', token: tokens.length === 0 ? 'absent' : 'present', noted },
    },
  };
}

function pendingEvidence(leases: readonly string[]): Evidence {
  return leases.length === 0 ? {} : { leases_pending: leases.slice(0, mostNamed).map((lease) => nameOf(lease)) };
}
