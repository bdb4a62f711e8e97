import { createHash } from 'node:crypto';
import type { ActiveRevision } from '../catalog/active.ts';
import type { EntitlementDefinition } from '../catalog/types.ts';
import { type Life, shortestLife } from '../domain/deadline.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Grant, Guarantee } from '../domain/grant.ts';
import type { TaskId } from '../domain/ids.ts';
import type { Revocation } from '../domain/revocation.ts';
import type { Task } from '../domain/task.ts';
import { workloadId } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { PolicyDecision } from '../policy/types.ts';
import type { Transaction } from '../store/database.ts';
import {
  claimIdempotencyKey,
  endGrants,
  findGrants,
  type GrantWithRevocation,
  insertIntent,
  moveIdempotencyKey,
} from '../store/grants.ts';
import { birthLocks } from '../store/locks.ts';
import { findTask, findTaskForGrant, insertDecision, type TaskForGrant } from '../store/tasks.ts';
import type { BrokerDeps, CallContext, TargetAccess } from './deps.ts';
import { grantEvent, taskEvent } from './evidence.ts';
import { type Cut, checkAlive, cutOf, lifeBounds } from './life.ts';
import { type Delivered, mintGrant } from './mint-grant.ts';
import { checkParams } from './params.ts';
import { requireRevision, withActiveRevision } from './revision.ts';

export interface GrantRequest {
  readonly entitlement: string;
  readonly ttlSeconds: number | null;
  readonly justification: string | null;
  readonly idempotencyKey: string | null;
}

export interface Issued extends Delivered {
  /** What was cut from what the agent asked for, and by which bound. */
  readonly cut: Cut | null;
  readonly idempotencyReplayed: boolean;
}

/** What the first transaction settled: the intent to mint, or a denial that is recorded all the same. */
type Settled =
  | {
      readonly kind: 'intent';
      readonly task: Task;
      readonly pending: GrantWithRevocation;
      readonly mintBy: Date;
      readonly life: Life;
      readonly replaced: readonly GrantWithRevocation[];
    }
  | { readonly kind: 'denied'; readonly decision: PolicyDecision; readonly decisionId: string };

/**
 * Issues one entitlement to one task: policy decides, the intent is committed, the provider mints, the grant becomes active if
 * its task is still alive, and only then is the secret answered.
 */
export async function issueGrant(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  taskId: TaskId,
  request: GrantRequest,
  context: CallContext,
): Promise<Issued> {
  const known = await findTask(deps.db, taskId);
  if (known === undefined || workloadId(known.workload) !== workloadId(caller.workload))
    throw new MayflyError('not_found');
  checkAlive(known, null);
  if (!known.ceiling.entitlements.includes(request.entitlement)) throw new MayflyError('not_in_task');

  const { settled, access } = await withActiveRevision(deps, async (active) => {
    const entitlement = active.catalog.entitlements.get(request.entitlement);
    if (entitlement === undefined) throw new MayflyError('not_in_task');
    const params = checkParams(entitlement, known.ceiling.params);
    const target = deps.access(entitlement);
    const guarantee = await target.session
      .guarantee(target.config, AbortSignal.timeout(deps.mintSeconds * 1000))
      .catch((cause: unknown) => {
        throw new MayflyError('target_unavailable', undefined, { cause });
      });
    const outcome = await deps.db.transaction(birthLocks(known.rootId), async (tx): Promise<Settled> => {
      const state = await findTaskForGrant(tx, taskId);
      if (state === undefined) throw new MayflyError('not_found');
      requireRevision(active, state.activeRevision);
      checkAlive(state.task, tx.now);
      return await settle(
        deps,
        tx,
        { active, entitlement, guarantee, state, request, params, access: target },
        context,
      );
    });
    return { settled: outcome, access: target };
  });

  if (settled.kind === 'denied') {
    deps.observer.decided('issue', false, settled.decision.errors.length > 0);
    throw new MayflyError('denied_by_policy', undefined, {
      members: { decision_id: `dec_${settled.decisionId}`, reasons: settled.decision.reasons },
    });
  }
  deps.observer.decided('issue', true, false);
  for (const { grant } of settled.replaced) deps.alarms.now(grant.target);
  const delivered = await mintGrant(deps, access, settled.task, settled.pending, settled.mintBy, context);
  return { ...delivered, cut: cutOf(request, settled.life), idempotencyReplayed: settled.replaced.length > 0 };
}

interface Asked {
  readonly active: ActiveRevision;
  readonly entitlement: EntitlementDefinition;
  readonly guarantee: Guarantee;
  readonly state: TaskForGrant;
  readonly request: GrantRequest;
  readonly params: Grant['params'];
  readonly access: TargetAccess;
}

async function settle(deps: BrokerDeps, tx: Transaction, asked: Asked, context: CallContext): Promise<Settled> {
  const { active, entitlement, guarantee, state, request } = asked;
  const { task } = state;
  const target = active.catalog.targets.get(entitlement.target);
  if (target === undefined) throw new MayflyError('not_in_task');
  const bounds = lifeBounds(request.ttlSeconds, task, entitlement, guarantee, tx.now);
  const decision = active.policy.decide({
    action: 'issue',
    now: tx.now,
    task: { ...task, params: task.ceiling.params },
    entitlement,
    target,
    ttlSeconds: Math.floor(shortestLife(bounds).seconds),
    guarantee: guarantee.revocation,
    tree: { liveGrants: state.liveGrants, sensitiveSinks: state.sensitiveSinks },
  });
  const digest = active.catalog.digest;
  const decisionId = deps.ids.next('dec');
  const decided = {
    id: decisionId,
    taskId: task.id,
    action: 'issue',
    resource: entitlement.name,
    permitted: decision.permitted,
    policies: decision.policies,
    errors: decision.errors,
    maxTtlSeconds: decision.maxTtlSeconds,
    revision: active.number,
    inputs: decision.inputs,
  };
  const made = (permitted: boolean, grantId: Grant['id'] | null) =>
    taskEvent('decision.made', task, digest, context, {
      resource: entitlement.name,
      action: 'issue',
      decision: permitted ? 'permit' : 'deny',
      decisionId,
      grantId,
      payload: {
        policies: decision.policies,
        errors: decision.errors.length,
        revision: active.number,
        justification: request.justification,
      },
    });
  if (!decision.permitted) {
    await insertDecision(tx, { ...decided, grantId: null });
    tx.record(made(false, null));
    return { kind: 'denied', decision, decisionId };
  }

  const life = shortestLife(
    decision.maxTtlSeconds === null ? bounds : [...bounds, { by: 'policy', seconds: decision.maxTtlSeconds }],
  );
  if (life.seconds < Math.max(1, guarantee.min_ttl_seconds)) throw new MayflyError('ttl_below_minimum');
  const mintBy = new Date(tx.now.getTime() + deps.mintSeconds * 1000);
  const id = deps.ids.next('grt');
  const grant: Grant = {
    id,
    taskId: task.id,
    rootId: task.rootId,
    entitlement: entitlement.name,
    target: target.name,
    params: asked.params,
    state: 'minting',
    handle: asked.access.session.reserve(id),
    facts: null,
    guarantee,
    deadline: new Date(tx.now.getTime() + Math.floor(life.seconds * 1000)),
    decisionId,
    decidedRevision: active.number,
    createdAt: tx.now,
    endedAt: null,
    endedBy: null,
  };
  // A mint that never reports falls due soon after it could have had an effect, not at the grant's deadline.
  const dueAt = new Date(mintBy.getTime() + 2_000);
  const revocation: Revocation = {
    id: deps.ids.next('rev'),
    grantId: id,
    target: target.name,
    state: 'scheduled',
    dueAt,
    tryAt: dueAt,
    attempts: 0,
    lastError: null,
    overdueAt: null,
    evidence: null,
    containedAt: null,
    cleanAt: null,
  };
  const replaced =
    request.idempotencyKey === null
      ? []
      : await takeKey(tx, task, grant, request.idempotencyKey, request, digest, context);
  await insertIntent(tx, {
    grant,
    sink: entitlement.sink && ['confidential', 'restricted'].includes(entitlement.sensitivity),
    mintBy,
    revocationId: revocation.id,
    dueAt,
    decision: { ...decided, grantId: id },
  });
  tx.record(made(true, id));
  tx.record(
    grantEvent('grant.intended', task, grant, digest, context, {
      action: 'issue',
      decision: 'permit',
      payload: { deadline: grant.deadline.toISOString(), guarantee: guarantee.revocation },
    }),
  );
  tx.changed(task.id);
  return { kind: 'intent', task, pending: { grant, revocation }, mintBy, life, replaced };
}

/** A repeated key ends the first grant: its secret was never stored, so it can not be given twice. */
async function takeKey(
  tx: Transaction,
  task: Task,
  grant: Grant,
  key: string,
  request: GrantRequest,
  digest: string,
  context: CallContext,
): Promise<readonly GrantWithRevocation[]> {
  const body = JSON.stringify([request.entitlement, request.ttlSeconds, request.justification]);
  const used = await claimIdempotencyKey(tx, task.id, key, createHash('sha256').update(body).digest(), grant.id);
  if (used === undefined) return [];
  if (!used.sameBody) throw new MayflyError('idempotency_key_reused');
  if (used.state === 'minting') throw new MayflyError('key_in_flight', undefined, { retryAfterSeconds: 1 });
  await moveIdempotencyKey(tx, task.id, key, grant.id);
  const ended = await endGrants(tx, { grantIds: [used.grantId] }, 'released');
  for (const { grant: first } of ended) {
    tx.record(
      grantEvent('grant.ended', task, first, digest, context, {
        cause: 'released',
        payload: { replaced_by: grant.id },
      }),
    );
  }
  // Ended before, by whatever: then there is nothing to end, but the answer is a repeated one all the same.
  return ended.length > 0 ? ended : await findGrants(tx, [used.grantId]);
}
