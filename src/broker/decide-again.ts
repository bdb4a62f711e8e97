import type { ActiveCatalog, ActiveRevision } from '../catalog/active.ts';
import { type GrantId, type Ids, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import type { PolicyDecision } from '../policy/types.ts';
import { enforcementOf } from '../store/catalog-revisions.ts';
import type { Database, Transaction } from '../store/database.ts';
import { insertDecision } from '../store/decisions.ts';
import { claimUndecided, claimUndecidedGrant, type Living, markRetained, triedOf } from '../store/drift.ts';
import { endGrants } from '../store/grants.ts';
import { findSignals } from '../store/signals.ts';
import { readTaskStates } from '../store/tasks.ts';
import type { Alarms } from './deps.ts';
import { grantEvent, taskEvent } from './evidence.ts';
import { signalPayload } from './move-by-signal.ts';
import { giveWay } from './give-way.ts';
import { isBySignal } from './by-signal.ts';
import { retainGrant } from './retain-grant.ts';

/** Held together, and for the store no longer than a few hundred milliseconds with the slowest of policies. */
export const SLICE = 100;
/** What part of a slice may fail before nothing of it is believed. */
export const MAX_FAILED_SHARE = 0.1;

const context = { requestId: 'drift-sweep' };

export interface DecideAgainDeps {
  readonly db: Database;
  readonly catalog: Pick<ActiveCatalog, 'current'>;
  readonly alarms: Pick<Alarms, 'now'>;
  readonly ids: Ids;
}

export interface Slice {
  /**
   * `done`: written; `failed`: too much of it failed, and only of those that a signal has decided again was written; `stale`: another revision is active than the one in
   * hand, or is just becoming it, and nothing was written.
   */
  readonly outcome: 'done' | 'failed' | 'stale';
  readonly stayed: number;
  readonly ended: number;
  /** Not permitted, and only told: the revision is enforced by report. */
  readonly reported: number;
  /** What policy failed to say something about (`triedOf`), with what it said instead. */
  readonly failed: ReadonlyMap<string, readonly string[]>;
  /** Their tasks are over (`triedOf`): they end by that. */
  readonly over: readonly string[];
  readonly more: boolean;
}

interface Drifted {
  readonly living: Living;
  readonly task: Task;
  readonly because: string;
  readonly policy: PolicyDecision | null;
  /** Policy would permit it, were it not for signals, or one forbids it only by them: no way to roll a policy out lets that live. */
  readonly bySignal: boolean;
}

/**
 * Some of those that no other replica has in hand (`triedOf` for those that are left out), or of these only those that a signal has
 * decided again; or one, for which is waited.
 */
export type Which = { readonly except: readonly string[]; readonly signalled?: boolean } | { readonly only: GrantId };

/**
 * Decides some living grants again that were not decided under the active revision, in one transaction: what is not permitted any
 * more ends with the evidence of why. A crash leaves all of it to whoever looks next.
 */
export async function decideAgain(deps: DecideAgainDeps, which: Which): Promise<Slice> {
  const active = deps.catalog.current();
  const targets = new Set<string>();
  let slice: Slice = { outcome: 'stale', stayed: 0, ended: 0, reported: 0, failed: new Map(), over: [], more: false };
  await deps.db.transaction({}, async (tx) => {
    const living =
      'only' in which
        ? await claimUndecidedGrant(tx, active.number, which.only)
        : await claimUndecided(tx, active.number, SLICE, which.except, which.signalled);
    if (living.length === 0) {
      slice = { ...slice, outcome: 'done' };
      return;
    }
    const verdicts = await judge(deps, tx, active, living);
    if (verdicts === 'stale') return;
    const { failed, over } = verdicts;
    slice = { ...slice, failed, over, more: living.length === SLICE };
    const believed = 'only' in which ? failed.size === 0 : isBelieved(living, failed);
    const { stays, told, drifted } = believed ? verdicts : signalledOf(living, verdicts);
    const enforce = await enforcementOf(tx, active.number);
    if (enforce === undefined) return;
    const live = enforce === 'report' ? drifted.filter((one) => !one.bySignal) : [];
    const ends = enforce === 'report' ? drifted.filter((one) => one.bySignal) : drifted;
    const reported = live.map(({ living: { id } }) => id);
    if (stays.length + reported.length > 0) await markRetained(tx, [...stays, ...reported], active.number);
    for (const { living: one, task, policies } of told)
      tx.record(madeEvent(active, one, task, null, { because: 'denied_by_policy', enforce: 'report', policies }));
    await reportDrifted(deps, tx, active, live);
    for (const target of await endDrifted(deps, tx, active, ends)) targets.add(target);
    slice = {
      ...slice,
      outcome: believed ? 'done' : 'failed',
      stayed: stays.length,
      ended: ends.length,
      reported: reported.length,
    };
    step('decide-again.before');
  });
  if (slice.stayed + slice.ended + slice.reported === 0) return slice;
  step('decide-again.after');
  for (const target of targets) deps.alarms.now(target);
  return slice;
}

/** What a signal has decided again is not asked, and not counted: what fails beside it must not keep it alive. */
function isBelieved(living: readonly Living[], failed: Slice['failed']): boolean {
  const others = living.filter(({ signalled }) => signalled === null);
  return others.filter((one) => failed.has(triedOf(one))).length <= others.length * MAX_FAILED_SHARE;
}

function signalledOf(living: readonly Living[], { stays, told, drifted }: Verdicts) {
  const signalled = new Set(living.flatMap((one) => (one.signalled === null ? [] : [one.id])));
  return {
    stays: stays.filter((id) => signalled.has(id)),
    told: told.filter((one) => signalled.has(one.living.id)),
    drifted: drifted.filter((one) => signalled.has(one.living.id)),
  };
}

interface Told {
  readonly living: Living;
  readonly task: Task;
  readonly policies: readonly string[];
}

interface Verdicts {
  readonly stays: readonly GrantId[];
  /** Of these: what policies that are only told would end. */
  readonly told: readonly Told[];
  readonly drifted: readonly Drifted[];
  readonly failed: ReadonlyMap<string, readonly string[]>;
  readonly over: readonly string[];
}

async function judge(
  deps: DecideAgainDeps,
  tx: Transaction,
  active: ActiveRevision,
  living: readonly Living[],
): Promise<Verdicts | 'stale'> {
  const taskIds = [...new Set(living.map(({ taskId }) => taskId))];
  const states = new Map(
    (await readTaskStates(tx, taskIds)).flatMap((state) => (state ? [[state.task.id, state]] : [])),
  );
  const stays: GrantId[] = [];
  const told: Told[] = [];
  const drifted: Drifted[] = [];
  const failed = new Map<string, readonly string[]>();
  const over: string[] = [];
  for (const each of living) {
    await giveWay();
    // A policy set that is not the active one any more is closed, and denies.
    if (deps.catalog.current() !== active) return 'stale';
    const state = states.get(each.taskId);
    if (state === undefined) throw new Error(`Grant ${each.id} has no task.`);
    const retained = retainGrant(active, each, state);
    if (retained.kind === 'stays') {
      stays.push(each.id);
      if (retained.reported !== undefined) told.push({ living: each, task: state.task, policies: retained.reported });
    } else if (retained.kind === 'over') over.push(triedOf(each));
    else if (retained.kind === 'failed') failed.set(triedOf(each), retained.errors);
    else
      drifted.push({
        ...retained,
        living: each,
        task: state.task,
        bySignal: isBySignal(active, each, state, retained),
      });
  }
  return { stays, told, drifted, failed, over };
}

/** Answers the targets where something is due now. */
async function endDrifted(
  deps: DecideAgainDeps,
  tx: Transaction,
  active: ActiveRevision,
  drifted: readonly Drifted[],
): Promise<Iterable<string>> {
  if (drifted.length === 0) return [];
  const { digest } = active.catalog;
  const grantIds = drifted.map(({ living }) => living.id);
  const signals = await signalsOf(tx, drifted);
  const bySignal = new Set(grantIds.filter((id) => signals.has(id)));
  const ended = [
    ...(await endGrants(tx, { grantIds: grantIds.filter((id) => !bySignal.has(id)) }, 'drift')),
    ...(await endGrants(tx, { grantIds: [...bySignal] }, 'signal')),
  ];
  const revocations = new Map(ended.map(({ grant, revocation }) => [grant.id, revocation]));
  for (const { living, task, because, policy } of drifted) {
    const { decisionId } =
      policy === null ? living : await recordDenial(deps, tx, active, living, task, policy, refusalOf(policy, because));
    const signal = signals.get(living.id);
    const revocation = revocations.get(living.id);
    tx.record(
      grantEvent('grant.ended', task, { ...living, decisionId }, digest, context, {
        cause: signal === undefined ? 'drift' : 'signal',
        payload: {
          because,
          policies: policy?.policies ?? [],
          revision: active.number,
          ...signal,
          ...(revocation === undefined ? {} : { revocation_id: `rev_${revocation.id}` }),
        },
      }),
    );
    tx.changed(task.id);
  }
  return drifted.map(({ living }) => living.target);
}

/** The signals by which policy was asked again, for those that it does not permit any more. */
async function signalsOf(
  tx: Transaction,
  drifted: readonly Drifted[],
): Promise<ReadonlyMap<GrantId, Readonly<Record<string, unknown>>>> {
  const asked = drifted.flatMap(({ living: { id, signalled }, policy }) =>
    signalled === null || policy === null ? [] : [{ id, signalled }],
  );
  if (asked.length === 0) return new Map();
  const ids = [...new Set(asked.map(({ signalled }) => signalled))];
  const known = new Map((await findSignals(tx, ids)).map((signal) => [signal.id, signalPayload(signal)]));
  return new Map(
    asked.map(({ id, signalled }) => [id, known.get(signalled) ?? { signal_id: wireId('sig', signalled) }]),
  );
}

/** Tells what would end, and lets it live. */
async function reportDrifted(
  deps: DecideAgainDeps,
  tx: Transaction,
  active: ActiveRevision,
  drifted: readonly Drifted[],
): Promise<void> {
  for (const { living, task, because, policy } of drifted) {
    const more = { because, enforce: 'report', ...(policy === null ? {} : refusalOf(policy, because)) };
    if (policy !== null) await recordDenial(deps, tx, active, living, task, policy, more);
    else tx.record(madeEvent(active, living, task, null, { ...more, policies: [] }));
  }
}

function madeEvent(
  active: ActiveRevision,
  living: Living,
  task: Task,
  decisionId: Living['decisionId'] | null,
  payload: Readonly<Record<string, unknown>>,
) {
  return taskEvent('decision.made', task, active.catalog.digest, context, {
    ...{ resource: living.entitlement, action: 'retain', decision: 'deny', decisionId, grantId: living.id },
    payload: { errors: 0, revision: active.number, ...payload },
  });
}

function refusalOf({ permitted }: PolicyDecision, because: string) {
  return permitted ? { refusal: because } : {};
}

/** The decision that ends it can be found again, and made again, as any other. */
async function recordDenial(
  deps: DecideAgainDeps,
  tx: Transaction,
  active: ActiveRevision,
  living: Living,
  task: Task,
  policy: PolicyDecision,
  more: Readonly<Record<string, unknown>>,
): Promise<Pick<Living, 'decisionId'>> {
  const decisionId = deps.ids.next('dec');
  await insertDecision(tx, {
    id: decisionId,
    taskId: task.id,
    action: 'retain',
    resource: living.entitlement,
    // Permitted, but not as it is: the refusal says why.
    permitted: policy.permitted,
    policies: policy.policies,
    errors: [],
    maxTtlSeconds: policy.maxTtlSeconds,
    revision: active.number,
    inputs: policy.inputs,
  });
  tx.record(madeEvent(active, living, task, decisionId, { policies: policy.policies, ...more }));
  return { decisionId };
}
