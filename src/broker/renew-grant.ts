import { isDeepStrictEqual } from 'node:util';
import { shortestLife } from '../domain/deadline.ts';
import type { EntitlementDefinition, Limits, TargetDefinition } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { type DecisionId, type GrantId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import { orAborted } from '../domain/within.ts';
import { type DeliveryKey, requireDelivery } from '../identity/delivery-key.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { PolicyDecision } from '../policy/types.ts';
import { ProviderError, type Ref, type Renewal, type Renewed, type Secret, type Session } from '../provider.ts';
import type { Transaction } from '../store/database.ts';
import { endGrants, extendGrant, findGrants, type GrantWithRevocation } from '../store/grants.ts';
import { birthLocks } from '../store/locks.ts';
import { issuingWithin } from '../store/issuing.ts';
import { findStop } from '../store/stops.ts';
import type { TaskState } from '../store/tasks.ts';
import { insertDecision } from '../store/decisions.ts';
import { withinAncestors } from './ancestors.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { grantEvent, taskEvent } from './evidence.ts';
import { failedOverProblem } from './failed-over.ts';
import { requireFresh } from './fresh.ts';
import { type Cut, checkAlive, cutOf, lifeBounds } from './life.ts';
import { killedProblem } from './kill.ts';
import { unapproved } from './needed-approvals.ts';
import { pausedProblem } from './pause-target.ts';
import { isSensitiveSink, policyRequest } from './policy-request.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { requireStanding } from './standing.ts';

export interface RenewedGrant {
  readonly grant: GrantWithRevocation;
  /** Only when the target could not extend the one in hand. */
  readonly credential: Secret<Readonly<Record<string, unknown>>> | null;
  readonly expiresAt: Date;
  readonly cut: Cut | null;
}

/**
 * A new decision and a new deadline, counted from now, never past the task's. The target is told first: until the store says so
 * too, the old deadline stands and is the one that any timer reads.
 */
export async function renewGrant(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  id: GrantId,
  ttlSeconds: number,
  delivery: DeliveryKey | null,
  context: CallContext,
): Promise<RenewedGrant> {
  const found = await deps.ownedGrants.find(id, caller);
  if (found === null) throw new MayflyError('not_found');
  const { grant } = found;
  if (grant.state !== 'active') throw new MayflyError('grant_ended', `The grant is ${grant.state}.`);
  if (grant.perCall) throw new MayflyError('grant_per_call');

  const active = revisionOf(deps, caller);
  const entitlement = active.catalog.entitlements.get(grant.entitlement);
  const target = active.catalog.targets.get(grant.target);
  if (entitlement === undefined || target === undefined) throw new MayflyError('not_in_task');
  const access = deps.access(entitlement);
  const asked: Asked = { ...{ deps, active, entitlement, target, found, delivery, context } };
  const settled = await deps.db.transaction(birthLocks(grant.rootId), async (tx) => {
    const state = await issuingWithin(tx).readTask(grant.taskId);
    if (state === null) throw new MayflyError('not_found');
    requireRevision(active, state.seen.revision);
    if (state.killed) throw killedProblem();
    checkAlive(state.task, tx.now);
    requireStanding(active.catalog, state.task);
    requireFresh(active.catalog, state, tx.now);
    const within = withinAncestors(state);
    const { task } = within;
    if (!task.ceiling.entitlements.includes(entitlement.name)) throw new MayflyError('not_in_task');
    requireDelivery(delivery, task, entitlement);
    const stop = await findStop(tx, grant);
    if (stop === 'killed') throw killedProblem();
    if (stop === 'paused') throw pausedProblem(grant.target);
    if (stop === 'failed_over') throw failedOverProblem(grant.target);
    const bounds = lifeBounds(ttlSeconds, task, entitlement, grant.guarantee, tx.now);
    const { seconds } = shortestLife(bounds);
    const { decision, refusal, decisionId } = await decideRenewal(asked, tx, within, seconds);
    const life = shortestLife(
      decision.maxTtlSeconds === null ? bounds : [...bounds, { by: 'policy', seconds: decision.maxTtlSeconds }],
    );
    const until = new Date(Math.max(tx.now.getTime() + Math.floor(life.seconds * 1000), grant.deadline.getTime()));
    step('decide-renewal.before');
    const aheadMillis = Date.now() - tx.now.getTime();
    return { task, signals: state.seen.signals, decision, refusal, decisionId, life, until, aheadMillis };
  });
  step('decide-renewal.after');

  const { refusal } = settled;
  deps.observer.decided('renew', refusal === null, settled.decision.errors.length > 0);
  if (refusal === 'denied_by_policy') {
    throw new MayflyError('denied_by_policy', undefined, {
      members: { decision_id: `dec_${settled.decisionId}`, reasons: settled.decision.reasons },
    });
  }
  if (refusal !== null) throw new MayflyError(refusal);
  const { task, until, decisionId, aheadMillis, signals } = settled;
  const ref = { grantId: grant.id, handle: grant.handle, facts: grant.facts, deadline: grant.deadline };
  const { session } = access;
  // Providers work by this machine's clock; what was decided is on the store's. The target never goes back to an earlier end.
  const signal = AbortSignal.timeout(deps.mintSeconds * 1000);
  const renewed = await renewal(session, ref, new Date(until.getTime() + aheadMillis), signal, {
    ...{ entitlement: entitlement.name, config: access.config, params: grant.params },
  });
  const stored = await deps.db.transaction(birthLocks(grant.rootId), async (tx) => {
    const deadline = await extendGrant(tx, grant.id, until, renewed.facts, decisionId, active.number, task.phase);
    if (deadline === undefined) return undefined;
    // What it was decided on must still stand. The target lets it live longer already: what would not be renewed now ends.
    const now = await issuingWithin(tx).readTask(grant.taskId);
    const isOvertaken = !isDeepStrictEqual(now?.seen.signals, signals);
    const again =
      isOvertaken && now !== null
        ? await decideRenewal(asked, tx, withinAncestors(now), settled.life.seconds)
        : settled;
    const stands = again.refusal === null && (again.decision.maxTtlSeconds ?? Infinity) >= settled.life.seconds;
    if (stands) tx.record(renewalEvent(task, found, again.decisionId, active.catalog.digest, context, deadline));
    else await endOvertaken(tx, asked, task, deadline, again.decision.policies);
    tx.changed(task.id);
    step('extend.before');
    return { stands, deadline, millis: deadline.getTime() - tx.now.getTime() };
  });
  step('extend.after');
  if (stored === undefined) throw new MayflyError('grant_ended', 'The grant or its task ended meanwhile.');
  const { stands, deadline, millis } = stored;
  if (!stands) {
    deps.alarms.now(grant.target);
    throw new MayflyError('grant_ended', 'Signals that came while it was renewed do not permit it, and it ended.');
  }
  deps.living.remember({ ...grant, facts: renewed.facts, deadline, decidedRevision: active.number });
  deps.alarms.in(grant.target, millis);
  const [after] = await findGrants(deps.db, [grant.id]);
  return {
    grant: after ?? found,
    credential: renewed.secret ?? null,
    // The target may have been told of a renewal that the store does not know yet.
    expiresAt: new Date(Math.min(renewed.expiresAt.getTime() - aheadMillis, deadline.getTime())),
    cut: cutOf({ ttlSeconds }, settled.life),
  };
}

/** What a renewal is decided with, each time. */
interface Asked {
  readonly deps: BrokerDeps;
  readonly active: ReturnType<typeof revisionOf>;
  readonly entitlement: EntitlementDefinition;
  readonly target: TargetDefinition;
  readonly found: GrantWithRevocation;
  readonly delivery: DeliveryKey | null;
  readonly context: CallContext;
}

/** With its evidence. @param state Within its ancestors. @param seconds How long it is to live from now. */
async function decideRenewal(asked: Asked, tx: Transaction, state: TaskState, seconds: number) {
  const { deps, active, entitlement, target, found, delivery, context } = asked;
  const { grant } = found;
  const decision = active.policy.decide(
    policyRequest(active.catalog, state, {
      ...{ action: 'renew', entitlement, target, guarantee: grant.guarantee.revocation },
      seconds,
      grant: { sink: isSensitiveSink(entitlement) },
    }),
  );
  const refusal = refusalOf(active.catalog.limits, grant.entitlement, decision, delivery);
  const decisionId = deps.ids.next('dec');
  await insertDecision(tx, {
    id: decisionId,
    taskId: state.task.id,
    action: 'renew',
    resource: entitlement.name,
    permitted: decision.permitted,
    policies: decision.policies,
    errors: decision.errors,
    maxTtlSeconds: decision.maxTtlSeconds,
    revision: active.number,
    inputs: decision.inputs,
  });
  tx.record(
    taskEvent('decision.made', state.task, active.catalog.digest, context, {
      resource: entitlement.name,
      action: 'renew',
      decision: refusal === null ? 'permit' : 'deny',
      decisionId,
      grantId: grant.id,
      payload: {
        ...{ policies: decision.policies, errors: decision.errors.length, revision: active.number },
        ...(decision.reported && { reported: decision.reported }),
        ...(refusal === null ? {} : { refusal }),
      },
    }),
  );
  return { decision, refusal, decisionId };
}

/** By signals that came while its target was told of the longer life. */
async function endOvertaken(
  tx: Transaction,
  { active, found: { grant }, context }: Asked,
  task: Task,
  deadline: Date,
  policies: readonly string[],
): Promise<void> {
  const [ended] = await endGrants(tx, { grantIds: [grant.id] }, 'signal');
  if (ended === undefined) return;
  tx.record(
    grantEvent('grant.ended', task, grant, active.catalog.digest, context, {
      cause: 'signal',
      payload: {
        ...{ because: 'renewal_overtaken', policies: [...policies], deadline: deadline.toISOString() },
        revocation_id: wireId('rev', ended.revocation.id),
      },
    }),
  );
}

/** Why nothing comes of it, also where policy permits it: the evidence must not say that it was given. */
function refusalOf(
  limits: Limits,
  entitlement: string,
  decision: PolicyDecision,
  delivery: DeliveryKey | null,
): 'denied_by_policy' | 'grant_per_call' | 'approval_required' | 'delivery_required' | null {
  if (!decision.permitted) return 'denied_by_policy';
  // It was permitted for longer once; from now on each call is asked about by itself.
  if (decision.perCall) return 'grant_per_call';
  if (unapproved(limits, entitlement, decision, []).length > 0) return 'approval_required';
  return decision.sealedDelivery && delivery === null ? 'delivery_required' : null;
}

async function renewal(
  session: Session,
  ref: Ref,
  until: Date,
  signal: AbortSignal,
  granted: Renewal,
): Promise<Renewed> {
  if (session.renew === undefined)
    throw new MayflyError('grant_ended', 'This target can not renew; ask for a new grant.');
  try {
    step('renew.before');
    const renewed = await orAborted(session.renew(ref, until, signal, granted), signal);
    step('renew.after');
    return renewed;
  } catch (error) {
    const gone = error instanceof ProviderError && error.errorClass === 'gone';
    throw new MayflyError(gone ? 'grant_ended' : 'target_unavailable', undefined, { cause: error });
  }
}

function renewalEvent(
  task: Task,
  found: GrantWithRevocation,
  decisionId: DecisionId,
  digest: string,
  context: CallContext,
  until: Date,
) {
  return grantEvent('grant.renewed', task, { ...found.grant, decisionId }, digest, context, {
    action: 'renew',
    decision: 'permit',
    payload: { deadline: until.toISOString(), deadline_before: found.grant.deadline.toISOString() },
  });
}
