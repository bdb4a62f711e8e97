import { MayflyError } from '../domain/errors.ts';
import type { Grant } from '../domain/grant.ts';
import { type GrantId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import { type DeliveryKey, requireDelivery } from '../identity/delivery-key.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { type Approval, findApprovalOfGrant, markCollected } from '../store/approvals.ts';
import type { Transaction } from '../store/database.ts';
import { insertDecision } from '../store/decisions.ts';
import { findAnyGrant } from '../store/grants.ts';
import { issuingWithin } from '../store/issuing.ts';
import { birthCollected, reachedLimit } from '../store/collecting.ts';
import { loneBirthLocks } from '../store/locks.ts';
import { findStop } from '../store/stops.ts';
import type { TaskState } from '../store/tasks.ts';
import { askable } from './askable.ts';
import { askedOf, differences, digestOfAsked } from './asked.ts';
import { type Ask, type Decided, decideGrant, type Denied } from './decide-grant.ts';
import { over } from './decide-approval.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { failedOverProblem } from './failed-over.ts';
import { deniedProblem, describeAsk, type GrantRequest, type Issued } from './issue-grant.ts';
import { killedProblem } from './kill.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { cutOf } from './life.ts';
import { mintGrant } from './mint-grant.ts';
import { pausedProblem } from './pause-target.ts';
import { revisionOf } from './revision.ts';

type Permit = Extract<Decided, { permitted: true }>;

/**
 * Mints what was approved, once. Everything is decided again: the task, policy, limits and kills as they are now, and that it is still
 * exactly what was approved; where it is not, the approval lapses.
 * @throws MayflyError `approval_pending`, `approval_over`, `approval_stale`, `delivery_not_approved`, or as issuing does.
 */
export async function collectGrant(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  id: GrantId,
  delivery: DeliveryKey | null,
  context: CallContext,
): Promise<Issued> {
  const found = await findAnyGrant(deps.db, id, caller);
  if (found === undefined) throw new MayflyError('not_found');
  const { grant } = found;
  const approval = await findApprovalOfGrant(deps.db, id);
  if (approval === undefined)
    throw new MayflyError('grant_ended', `The grant is ${grant.state}, and waits for nothing.`);
  requireApproved(approval, null);
  if ((delivery?.thumbprint ?? null) !== approval.asked.delivery) throw new MayflyError('delivery_not_approved');
  const active = revisionOf(deps, caller);
  const { ttl_seconds: ttlSeconds, justification } = approval.asked;
  const request: GrantRequest = {
    entitlement: grant.entitlement,
    ttlSeconds,
    justification,
    delivery,
    idempotencyKey: null,
  };
  const { id: approvalId, groups, digest } = approval;
  const ask: Ask = {
    ...(await describeAsk(deps, active, request, digest)),
    approved: { id: approvalId, groups, grant },
  };

  const settled = await deps.db.transaction(loneBirthLocks(grant.rootId), async (tx) => {
    const outcome = await settle(deps, caller, tx, ask, approval, context);
    step('collect.before');
    return outcome;
  });
  step('collect.after');
  if ('stale' in settled) throw new MayflyError('approval_stale', undefined, { members: { differs: settled.stale } });
  if ('denied' in settled) {
    deps.observer.decided('issue', false, settled.denied.failed);
    throw deniedProblem(settled.denied);
  }
  deps.observer.decided('issue', true, false);
  const { state, readAt, decided, aheadMillis } = settled;
  const delivered = await mintGrant(deps, ask.access, state.task, decided.intent, context, {
    aheadMillis,
    now: () => new Date(state.now.getTime() + performance.now() - readAt),
  });
  return { ...delivered, cut: cutOf(request, decided.life), idempotencyReplayed: false };
}

type Settled =
  | {
      readonly decided: Permit;
      readonly state: TaskState;
      /** `performance.now()` when the state had been read. */
      readonly readAt: number;
      /** How far our wall clock was ahead of the store's then. */
      readonly aheadMillis: number;
    }
  | { readonly denied: Denied }
  | { readonly stale: readonly string[] };

/** Under the locks of a birth that no other in the tree runs beside. */
async function settle(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  tx: Transaction,
  ask: Ask,
  approval: Approval,
  context: CallContext,
): Promise<Settled> {
  const { active } = ask;
  const { id: approvalId, grantId: id } = approval;
  const readHere = Date.now();
  const read = await issuingWithin(tx).readTask(approval.taskId);
  const readAt = performance.now();
  const state = askable(deps, active, caller, read, ask.entitlement.name);
  requireApproved(await reread(tx, id), tx.now);
  requireDelivery(ask.request.delivery, state.task, ask.entitlement);
  const stop = await findStop(tx, { entitlement: ask.entitlement.name, target: ask.target.name });
  if (stop === 'killed') throw killedProblem();
  if (stop === 'paused') throw pausedProblem(ask.target.name);
  if (stop === 'failed_over') throw failedOverProblem(ask.target.name);
  const decided = decideGrant(deps, ask, state, context);
  if (!decided.permitted) return await refuse(tx, decided);
  const stale = changed(approval, ask, state, decided);
  if (stale.length > 0) {
    await lapseApprovals(deps, tx, { kind: 'grant', id }, 'stale', context);
    return { stale };
  }
  const { intent } = decided;
  const reached = await reachedLimit(tx, intent, state.task.workload);
  if (reached !== null) return await refuse(tx, decided.limited(reached));
  // Another call may have it: then nothing of this one stands.
  if (!(await markCollected(tx, approvalId))) throw over(await reread(tx, id), tx.now);
  await insertDecision(tx, intent.decision);
  await birthCollected(tx, intent, state.task.workload);
  for (const event of intent.events) tx.record(event);
  tx.changed(approval.taskId);
  return { state, readAt, decided, aheadMillis: readHere - state.now.getTime() };
}

/** @param now Null: by its state alone. @throws MayflyError `approval_pending`, `approval_over` */
function requireApproved(approval: Approval, now: Date | null): void {
  if (approval.state === 'pending' && (now === null || approval.expiresAt > now))
    throw new MayflyError('approval_pending', undefined, { members: { approval_id: wireId('apr', approval.id) } });
  if (approval.state !== 'approved' || (now !== null && approval.expiresAt <= now)) throw over(approval, now);
}

async function reread(tx: Transaction, id: Grant['id']): Promise<Approval> {
  const approval = await findApprovalOfGrant(tx, id);
  if (approval === undefined) throw new MayflyError('internal');
  return approval;
}

/** A denial is written down, and the approval stands until its time is over: what denies it may pass. */
async function refuse(tx: Transaction, denied: Denied): Promise<{ readonly denied: Denied }> {
  await insertDecision(tx, denied.decision);
  tx.record(denied.event);
  return { denied };
}

/** What is not as it was approved: parts of what was asked, or who must approve it. */
function changed(
  { asked, digest }: Approval,
  ask: Ask,
  { task }: TaskState,
  { intent, needs }: Permit,
): readonly string[] {
  const { params, guarantee, perCall } = intent.grant;
  const now = askedOf(task, {
    ...{ entitlement: ask.entitlement, target: ask.target, params, guarantee, delivery: ask.request.delivery, perCall },
    // Its life is counted from now, and cut to what is left of the task: what was approved bounds it.
    ...{ ttlSeconds: asked.ttl_seconds, justification: asked.justification },
  });
  const differing = [...differences(asked, now), ...(needs.length === 0 ? [] : ['groups'])];
  // As it was written down, it is what the digest is of; and so it is now.
  const same = digestOfAsked(asked).equals(digest) && digestOfAsked(now).equals(digest);
  return same || differing.length > 0 ? differing : ['digest'];
}
