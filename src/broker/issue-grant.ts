import { createHash } from 'node:crypto';
import { MayflyError } from '../domain/errors.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import { timed } from '../domain/within.ts';
import { type DeliveryKey, requireDelivery } from '../identity/delivery-key.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { findGrants, type GrantWithRevocation } from '../store/grants.ts';
import { findUsedKey, type Intent, limitOf, moveUsedKey } from '../store/intents.ts';
import { type Issuing, issuingWithin } from '../store/issuing.ts';
import { insertDecision } from '../store/decisions.ts';
import type { TaskState } from '../store/tasks.ts';
import { askable } from './askable.ts';
import { askApproval, type Pending } from './ask-approval.ts';
import { type Ask, type Decided, decideGrant, type Denied } from './decide-grant.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { failedOverProblem } from './failed-over.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { type Cut, cutOf } from './life.ts';
import { type Delivered, mintGrant } from './mint-grant.ts';
import { killedProblem } from './kill.ts';
import { pausedProblem } from './pause-target.ts';
import { endForReplay } from './replayed-key.ts';
import { revisionOf } from './revision.ts';

export interface GrantRequest {
  readonly entitlement: string;
  readonly ttlSeconds: number | null;
  readonly justification: string | null;
  /** What the credential is to be sealed to; null: it goes as it is. */
  readonly delivery: DeliveryKey | null;
  readonly idempotencyKey: string | null;
}

export interface Issued extends Delivered {
  /** What was cut from what the agent asked for, and by which bound. */
  readonly cut: Cut | null;
  readonly idempotencyReplayed: boolean;
}

/** Policy permits it once it is approved. */
interface Unapproved {
  readonly ask: Ask;
  readonly rootId: TaskId;
}

interface Settled {
  readonly state: TaskState;
  /** `performance.now()` when the state had been read: what is carried on from there is never ahead of the store. */
  readonly readAt: number;
  /** How far our wall clock was ahead of the store's then. */
  readonly aheadMillis: number;
  readonly ask: Ask;
  readonly decided: Extract<Decided, { permitted: true }>;
  readonly replaced: readonly GrantWithRevocation[];
}

/** Rivals for one task tree change what a decision was made on; after so many of them we ask for the tree alone. */
const OPTIMISTIC_TRIES = 2;

/**
 * Issues one entitlement to one task: policy decides, the intent is committed, the provider mints, the grant becomes active if
 * its task is still alive, and only then is the secret answered. Where policy wants it approved, it waits for that instead.
 */
export async function issueGrant(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  taskId: TaskId,
  request: GrantRequest,
  context: CallContext,
): Promise<Issued | Pending> {
  const settled = await settle(deps, caller, taskId, request, context);
  if ('permitted' in settled) return await deny(deps, taskId, request, settled, context);
  if ('rootId' in settled) return await askApproval(deps, caller, taskId, settled.rootId, settled.ask, context);
  const { decided, state, replaced, ask } = settled;
  deps.observer.decided('issue', true, false);
  for (const { grant } of replaced) deps.alarms.now(grant.target);
  const delivered = await mintGrant(deps, ask.access, state.task, decided.intent, context, {
    aheadMillis: settled.aheadMillis,
    // The store's clock, carried on by ours: only the event's time, nothing is decided by it.
    now: () => new Date(state.now.getTime() + performance.now() - settled.readAt),
  });
  return { ...delivered, cut: cutOf(request, decided.life), idempotencyReplayed: replaced.length > 0 };
}

/** Runs on the pool, or within a transaction that holds the tree alone. */
interface Stage {
  readonly store: Issuing;
  readonly transaction: <T>(body: (tx: Transaction) => Promise<T>) => Promise<T>;
}

/**
 * Decides on what one read of the store says, then commits the decision if all of that still holds under the locks; if not,
 * from the beginning. Two round trips instead of a transaction of seven.
 */
async function settle(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  taskId: TaskId,
  request: GrantRequest,
  context: CallContext,
): Promise<Settled | Denied | Unapproved> {
  const bodyDigest = digestOf(request);
  // Made once: while the tree is held alone nothing remote is asked.
  let ask: Ask | undefined;
  const attempt = async (stage: Stage): Promise<Settled | Denied | Unapproved | TaskId> => {
    const active = revisionOf(deps, caller);
    const readHere = Date.now();
    const read = await stage.store.readTask(taskId);
    const readAt = performance.now();
    const state = askable(deps, active, caller, read, request.entitlement);
    ask = ask?.active === active ? ask : await describeAsk(deps, active, request, bodyDigest);
    requireDelivery(request.delivery, state.task, ask.entitlement);
    const decided = decideGrant(deps, ask, state, context);
    if (!decided.permitted) return decided;
    if (decided.needs.length > 0) return { ask, rootId: state.task.rootId };
    step('intend.before');
    const outcome = await stage.store.intend(decided.intent, state);
    step('intend.after');
    if (outcome === 'killed') throw killedProblem();
    if (outcome === 'paused') throw pausedProblem(ask.target.name);
    if (outcome === 'failed_over') throw failedOverProblem(ask.target.name);
    const reached = limitOf(outcome);
    if (reached !== undefined) return decided.limited(reached);
    const replaced = outcome === 'key_used' ? await replace(deps, stage, decided.intent, state, context) : [];
    if (typeof replaced === 'string') return decided.limited(replaced);
    return outcome === 'changed' || outcome === 'busy' || replaced === undefined
      ? state.task.rootId
      : { state, readAt, aheadMillis: readHere - state.now.getTime(), ask, decided, replaced };
  };

  const onPool: Stage = { store: deps.issuing, transaction: (run) => deps.db.transaction({}, run) };
  let settled = await attempt(onPool);
  for (let tries = 1; typeof settled === 'string' && tries < OPTIMISTIC_TRIES; tries++) settled = await attempt(onPool);
  if (typeof settled !== 'string') return settled;
  const locks = { kill: 'shared', catalog: 'shared', root: { id: settled, mode: 'exclusive' } } as const;
  step('intend-alone.before');
  const alone = await deps.db.transaction(locks, (tx) =>
    attempt({ store: issuingWithin(tx), transaction: (run) => run(tx) }),
  );
  step('intend-alone.after');
  if (typeof alone === 'string') throw new MayflyError('store_unavailable', 'The task changed while it was looked at.');
  return alone;
}

/** What is asked for, by the catalog, with what its target promises. @throws MayflyError `not_in_task`, `target_unavailable` */
export async function describeAsk(
  deps: BrokerDeps,
  active: Ask['active'],
  request: GrantRequest,
  bodyDigest: Buffer,
): Promise<Ask> {
  const entitlement = active.catalog.entitlements.get(request.entitlement);
  const target = entitlement && active.catalog.targets.get(entitlement.target);
  if (entitlement === undefined || target === undefined) throw new MayflyError('not_in_task');
  const access = deps.access(entitlement);
  step('guarantee.before');
  const promised = timed(deps.mintSeconds * 1000, (signal) => access.session.guarantee(access.config, signal));
  const guarantee = await promised.catch((cause: unknown) => {
    throw new MayflyError('target_unavailable', undefined, { cause });
  });
  step('guarantee.after');
  return { active, entitlement, target, access, guarantee, request, bodyDigest };
}

/**
 * A denial is written down before it is answered. A repeated Idempotency-Key says that nobody holds the first secret: that grant
 * ends, whatever is decided about a new one.
 */
async function deny(
  deps: BrokerDeps,
  taskId: TaskId,
  request: GrantRequest,
  denied: Denied,
  context: CallContext,
): Promise<never> {
  step('deny.before');
  const ended = await deps.db.transaction({}, async (tx) => {
    await insertDecision(tx, denied.decision);
    tx.record(denied.event);
    if (request.idempotencyKey === null) return [];
    const used = await findUsedKey(tx, taskId, request.idempotencyKey, digestOf(request));
    if (used?.sameBody !== true) return [];
    return await endForReplay(tx, used.grantId, denied.task, denied.event.policyDigest, context, null);
  });
  step('deny.after');
  for (const { grant } of ended) deps.alarms.now(grant.target);
  deps.observer.decided('issue', false, denied.failed);
  throw deniedProblem(denied);
}

/** What the caller is told of a denial. */
export function deniedProblem({ code, decision, reasons }: Denied): MayflyError {
  return new MayflyError(code, undefined, { members: { decision_id: wireId('dec', decision.id), reasons } });
}

function digestOf(request: GrantRequest): Buffer {
  const { entitlement, ttlSeconds, justification, delivery } = request;
  const sealedTo = delivery === null ? [] : [delivery.thumbprint];
  const body = JSON.stringify([entitlement, ttlSeconds, justification, ...sealedTo]);
  return createHash('sha256').update(body).digest();
}

/**
 * A repeated key ends the first grant and lets the key stand for the new one, together with the new intent: the first secret was
 * never stored, so it can not be given twice. Undefined when the task changed meanwhile, the name of a limit where one leaves no room: the
 * first one counts until it is contained.
 */
async function replace(
  deps: BrokerDeps,
  stage: Stage,
  intent: Intent,
  state: TaskState,
  context: CallContext,
): Promise<readonly GrantWithRevocation[] | string | undefined> {
  const { grant, idempotency } = intent;
  if (idempotency === null) return [];
  step('replay.before');
  const replaced = await stage.transaction(async (tx) => {
    const outcome = await issuingWithin(tx).intend({ ...intent, idempotency: null }, state);
    const reached = limitOf(outcome);
    if (reached !== undefined) return reached;
    if (outcome !== 'done' && outcome !== 'paused') return undefined;
    const used = await findUsedKey(tx, grant.taskId, idempotency.key, idempotency.bodyDigest);
    // What it waited for is not needed any more.
    if (used?.sameBody === true)
      await lapseApprovals(deps, tx, { kind: 'grant', id: used.grantId }, 'replaced', context);
    if (used === undefined || used.state === 'minting')
      throw new MayflyError('key_in_flight', undefined, { retryAfterSeconds: 1 });
    if (!used.sameBody) throw new MayflyError('idempotency_key_reused');
    // Nothing may begin there now, so nothing is replaced: what was answered stands, by its name.
    if (outcome === 'paused') throw pausedProblem(grant.target, { grant_id: wireId('grt', used.grantId) });
    await moveUsedKey(tx, grant.taskId, idempotency.key, grant.id);
    const digest = intent.events[0]?.policyDigest ?? 'none';
    const ended = await endForReplay(tx, used.grantId, state.task, digest, context, grant.id);
    // Ended before, by whatever: then there is nothing to end, but the answer is a repeated one all the same.
    return ended.length > 0 ? ended : await findGrants(tx, [used.grantId]);
  });
  step('replay.after');
  return replaced;
}
