import type { ActiveRevision } from '../catalog/active.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import type { DecisionId } from '../domain/ids.ts';
import { type ProblemCode, problemKind } from '../domain/problems.ts';
import { step } from '../domain/step.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { Evaluation } from '../policy/types.ts';
import { insertDecision, recordDecision } from '../store/decisions.ts';
import { birthLocks } from '../store/locks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { type AskedEvaluation, findSubject, type Found, nameOf, subjectOf } from './evaluated-subject.ts';
import { taskEvent } from './evidence.ts';
import { revisionOf } from './revision.ts';
import { namesPermit, settleUse } from './single-use.ts';

/** A permit is for one call, which begins within so many seconds: after them it is asked again. */
const VALID_SECONDS = 10;

export interface Evaluated {
  readonly permitted: boolean;
  /** Null: nothing was decided, and nothing recorded, since there is nobody to decide about. */
  readonly decisionId: DecisionId | null;
  readonly revision: number;
  readonly validForSeconds: number;
  /** Why it is not permitted. */
  readonly code: ProblemCode | 'not_evaluable' | 'permit_not_usable' | 'evaluations_spent' | null;
  readonly reasons: readonly string[];
  /** It has to be asked again, by this decision's id, when the call begins: and then once. */
  readonly singleUse: boolean;
}

/**
 * Whether the subject may do this to that now. A task is taken as it is at this moment, behind the locks that every birth takes: after
 * the answer to its end, or to a kill, nothing is permitted to it. Decision and use event are committed before the answer.
 */
export async function evaluate(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  asked: AskedEvaluation,
  context: CallContext,
): Promise<Evaluated> {
  const active = revisionOf(deps, caller);
  const subject = await subjectOf(deps, active, caller, asked);
  if (subject === undefined) return undecided(active, nobody);
  if (subject.kind === 'task' && !(await deps.taskEvaluations.hasRoom(subject.id))) return undecided(active, spent);
  const locks = subject.kind === 'task' ? birthLocks(subject.root) : birthLocks();
  const evaluated = await deps.db.transaction(locks, async (tx) => {
    const found = await findSubject(tx, active, caller, subject);
    if (found === undefined) return undefined;
    const decided = decide(active, found, asked, tx.now);
    const id = deps.ids.next('dec');
    const decision = {
      id,
      taskId: found.about.id,
      action: 'evaluate',
      resource: nameOf(asked.resource),
      permitted: decided.policy.permitted,
      policies: decided.policy.policies,
      errors: decided.policy.errors,
      maxTtlSeconds: decided.policy.maxTtlSeconds,
      revision: active.number,
      inputs: decided.policy.inputs,
    };
    const { permitted, singleUse } = decided.policy;
    // What a permit is used by must stand there first; all else goes with the event, in one statement.
    if (permitted && (singleUse || namesPermit(asked))) await insertDecision(tx, decision);
    else recordDecision(tx, decision);
    const use = permitted
      ? await settleUse(tx, caller, found, asked, { id, singleUse, seconds: decided.seconds })
      : 'free';
    if (subject.kind === 'task') {
      // A permit for one use is a call when it is used.
      const isCall = permitted && (use === 'free' || use === 'used');
      tx.used({ root_id: subject.root, task_id: subject.id, permitted: isCall });
    }
    const settled = use === 'refused' ? { ...decided, ...notUsable } : decided;
    tx.record(useEvent(active, found, asked, settled, id, context, use));
    step('evaluate.before');
    return { ...settled, id, singleUse: use === 'given' };
  });
  step('evaluate.after');
  if (evaluated === undefined) return undecided(active, nobody);
  const { policy, code, reasons, seconds, id, singleUse } = evaluated;
  deps.observer.decided('evaluate', code === null, policy.errors.length > 0);
  return {
    permitted: code === null,
    decisionId: id,
    singleUse,
    revision: active.number,
    validForSeconds: seconds,
    code,
    reasons,
  };
}

const nobody = { code: 'not_found', reasons: ['There is no such subject that you may ask about.'] } as const;

const spent = {
  code: 'evaluations_spent',
  reasons: ['This task was asked about as often as it may be in its life.'],
} as const;

/** Nothing is recorded of it. */
function undecided({ number }: ActiveRevision, refusal: Pick<Evaluated, 'code' | 'reasons'>): Evaluated {
  return {
    ...{ permitted: false, decisionId: null, revision: number, validForSeconds: 0, singleUse: false },
    ...refusal,
  };
}

interface Decided {
  readonly policy: Evaluation;
  readonly code: Evaluated['code'];
  readonly reasons: readonly string[];
  readonly seconds: number;
}

function decide(active: ActiveRevision, found: Found, asked: AskedEvaluation, now: Date): Decided {
  try {
    const { subject, signals, until } = found.alive();
    const { action, resource, context: said } = asked;
    const policy = active.policy.evaluate({ now, subject, signals, action, resource, said });
    if (policy.permitted) return { policy, code: null, reasons: [], seconds: validSeconds(policy, until, now) };
    return policy.unfit === null
      ? { policy, code: 'denied_by_policy', reasons: policy.reasons, seconds: 0 }
      : { policy, code: 'not_evaluable', reasons: [policy.unfit], seconds: 0 };
  } catch (error) {
    if (!(error instanceof MayflyError) || error.status >= 500) throw error;
    return { policy: notAsked, code: error.code, reasons: [error.detail ?? problemKind(error.code).title], seconds: 0 };
  }
}

const notUsable = {
  code: 'permit_not_usable',
  reasons: ['This permit was used, is not yours, is for another call, or is too old.'],
  seconds: 0,
} as const;

const notAsked: Evaluation = {
  ...{ permitted: false, policies: [], maxTtlSeconds: null, perCall: false, sealedDelivery: false, approvalGroups: [] },
  ...{ reasons: [], errors: [], inputs: {}, unfit: null, singleUse: false },
};

/** No longer than the task lives, or than `@max_ttl` of what permitted it. */
function validSeconds({ maxTtlSeconds }: Evaluation, until: Date | null, now: Date): number {
  const left = until === null ? VALID_SECONDS : Math.floor((until.getTime() - now.getTime()) / 1000);
  return Math.max(0, Math.min(VALID_SECONDS, maxTtlSeconds ?? VALID_SECONDS, left));
}

function useEvent(
  { catalog, number }: ActiveRevision,
  { about, gateway }: Found,
  asked: AskedEvaluation,
  { policy, code }: Decided,
  decisionId: DecisionId,
  context: CallContext,
  use: Awaited<ReturnType<typeof settleUse>>,
): AuditEvent {
  return taskEvent('use.evaluated', about, catalog.digest, context, {
    resource: nameOf(asked.resource),
    action: asked.action.name,
    decision: code === null ? 'permit' : 'deny',
    decisionId,
    payload: {
      policies: policy.policies,
      errors: policy.errors.length,
      revision: number,
      ...(policy.reported && { reported: policy.reported }),
      ...(code === null ? {} : { refusal: code }),
      ...(use === 'given' || use === 'used' ? { single_use: use } : {}),
      ...(gateway === null ? {} : { gateway: gateway.name }),
    },
  });
}
