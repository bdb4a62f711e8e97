import type { ActiveRevision } from '../catalog/active.ts';
import type { EntitlementDefinition, TargetDefinition } from '../catalog/types.ts';
import { type Life, shortestLife } from '../domain/deadline.ts';
import { type ApprovalId, wireId } from '../domain/ids.ts';
import type { Grant, Guarantee } from '../domain/grant.ts';
import type { Revocation } from '../domain/revocation.ts';
import type { Task } from '../domain/task.ts';
import type { Intent } from '../store/intents.ts';
import type { NewDecision } from '../store/decisions.ts';
import type { TaskState } from '../store/tasks.ts';
import type { BrokerDeps, CallContext, TargetAccess } from './deps.ts';
import { grantEvent, taskEvent } from './evidence.ts';
import type { GrantRequest } from './issue-grant.ts';
import { unapproved } from './needed-approvals.ts';
import { lifeBounds } from './life.ts';
import { type LimitRule, limitsBeyondTree, reachedInTree } from './limits.ts';
import { checkParams } from './params.ts';
import { isSensitiveSink, policyRequest } from './policy-request.ts';

/** A mint that never reports falls due this soon after the last moment at which it could have had an effect. */
const UNREPORTED_MILLIS = 2_000;

const NOT_PER_CALL =
  'It is permitted for one call only (@per_call), and this target can not hold a credential to one connection.';

/** Everything that a decision to issue needs beside the task's own state. */
export interface Ask {
  readonly active: ActiveRevision;
  readonly entitlement: EntitlementDefinition;
  readonly target: TargetDefinition;
  readonly access: TargetAccess;
  readonly guarantee: Guarantee;
  readonly request: GrantRequest;
  readonly bodyDigest: Buffer;
  /** What was approved: asked about again, to be collected. */
  readonly approved?: { readonly id: ApprovalId; readonly groups: readonly string[]; readonly grant: Grant };
}

type Refusal = 'denied_by_policy' | 'delivery_required' | 'limit_reached' | 'ttl_below_minimum';

export type Decided =
  | {
      readonly permitted: true;
      readonly intent: Intent;
      readonly life: Life;
      /** Groups that must approve it first. */
      readonly needs: readonly string[];
      /** The same as a denial, because of a limit that only the store could see reached. */
      readonly limited: (name: string) => Denied;
    }
  | Denied;

export interface Denied {
  readonly permitted: false;
  readonly decision: NewDecision;
  readonly task: Task;
  readonly code: Refusal;
  /** What the caller is told. */
  readonly reasons: readonly string[];
  readonly failed: boolean;
  readonly event: ReturnType<typeof taskEvent>;
}

/** Policy decides on the task as it is; a permit becomes the intent that is to be committed. Writes nothing. */
export function decideGrant(
  deps: Pick<BrokerDeps, 'ids' | 'mintSeconds'>,
  ask: Ask,
  state: TaskState,
  context: CallContext,
): Decided {
  const { active, entitlement, target, guarantee, request, approved } = ask;
  const { task, now } = state;
  const params = checkParams(entitlement, task.ceiling.params);
  const bounds = lifeBounds(request.ttlSeconds, task, entitlement, guarantee, now);
  const policy = active.policy.decide(
    policyRequest(active.catalog, state, {
      ...{ action: 'issue', entitlement, target, guarantee: guarantee.revocation },
      seconds: shortestLife(bounds).seconds,
    }),
  );
  const digest = active.catalog.digest;
  const decision: NewDecision = {
    id: deps.ids.next('dec'),
    taskId: task.id,
    action: 'issue',
    resource: entitlement.name,
    permitted: policy.permitted,
    policies: policy.policies,
    errors: policy.errors,
    maxTtlSeconds: policy.maxTtlSeconds,
    revision: active.number,
    inputs: policy.inputs,
  };
  const made = (grantId: Grant['id'] | null, refusal: string | null, limit?: string) =>
    taskEvent('decision.made', task, digest, context, {
      resource: entitlement.name,
      action: 'issue',
      decision: refusal === null ? 'permit' : 'deny',
      decisionId: decision.id,
      grantId,
      payload: {
        policies: policy.policies,
        errors: policy.errors.length,
        revision: active.number,
        justification: request.justification,
        ...(request.delivery === null ? {} : { sealed_to: request.delivery.thumbprint }),
        ...(approved === undefined ? {} : { approval_id: wireId('apr', approved.id) }),
        ...(policy.reported && { reported: policy.reported }),
        ...(refusal === null ? {} : { refusal }),
        ...(limit === undefined ? {} : { limit }),
      },
    });
  const refused = (code: Refusal, reasons = policy.reasons, limit?: string): Denied => ({
    permitted: false,
    ...{ code, reasons, task, decision, failed: policy.errors.length > 0 },
    event: made(null, code, limit),
  });
  const limited = ({ name, reason }: LimitRule) =>
    refused('limit_reached', [reason ?? `The limit ${name} is reached.`], name);
  if (!policy.permitted) return refused('denied_by_policy');
  if (policy.perCall && guarantee.one_connection !== true) return refused('denied_by_policy', [NOT_PER_CALL]);
  if (policy.sealedDelivery && request.delivery === null) return refused('delivery_required');

  const reached = reachedInTree(active.catalog.limits, entitlement.name, state.seen.held);
  if (reached !== undefined) return limited(reached);

  const life = shortestLife(
    policy.maxTtlSeconds === null ? bounds : [...bounds, { by: 'policy', seconds: policy.maxTtlSeconds }],
  );
  if (life.seconds < Math.max(1, guarantee.min_ttl_seconds)) return refused('ttl_below_minimum');
  const id = approved?.grant.id ?? deps.ids.next('grt');
  const mintBy = new Date(now.getTime() + deps.mintSeconds * 1000);
  const dueAt = new Date(mintBy.getTime() + UNREPORTED_MILLIS);
  const grant: Grant = {
    id,
    taskId: task.id,
    rootId: task.rootId,
    entitlement: entitlement.name,
    target: target.name,
    params,
    state: 'minting',
    handle: approved?.grant.handle ?? ask.access.session.reserve(id),
    facts: null,
    guarantee,
    deadline: new Date(now.getTime() + Math.floor(life.seconds * 1000)),
    perCall: policy.perCall,
    decisionId: decision.id,
    decidedRevision: active.number,
    createdAt: now,
    endedAt: null,
    endedBy: null,
  };
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
  const intended = grantEvent('grant.intended', task, grant, digest, context, {
    action: 'issue',
    decision: 'permit',
    payload: { deadline: grant.deadline.toISOString(), guarantee: guarantee.revocation },
  });
  const intent: Intent = {
    grant,
    revocation,
    sink: isSensitiveSink(entitlement),
    mintBy,
    decision,
    limits: limitsBeyondTree(active.catalog.limits, entitlement.name),
    idempotency: request.idempotencyKey === null ? null : { key: request.idempotencyKey, bodyDigest: ask.bodyDigest },
    events: [made(id, null), intended],
  };
  return {
    ...{ permitted: true, intent, life },
    needs: unapproved(active.catalog.limits, entitlement.name, policy, approved?.groups ?? []),
    limited: (name) =>
      limited(active.catalog.limits.atMost.find((rule) => rule.name === name) ?? { name, reason: null }),
  };
}
