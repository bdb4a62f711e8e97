import type { AuditEvent, AuditEventType } from '../domain/audit-event.ts';
import type { Grant } from '../domain/grant.ts';
import { type Task, workloadId } from '../domain/task.ts';
import type { CallContext } from './deps.ts';

type Details = Partial<
  Pick<AuditEvent, 'resource' | 'action' | 'decision' | 'cause' | 'grantId' | 'decisionId' | 'payload'>
>;

type About = Pick<Task, 'subject' | 'workload' | 'txn'> & { readonly id: Task['id'] | null };

/** An event about a task, with the minimum fields taken from it. */
export function taskEvent(
  type: AuditEventType,
  task: About,
  policyDigest: string,
  context: Pick<CallContext, 'requestId'>,
  details: Details = {},
): AuditEvent {
  return {
    type,
    agent: workloadId(task.workload),
    subject: task.subject === task.workload.subject ? 'self' : task.subject,
    resource: 'none',
    action: type.slice(type.indexOf('.') + 1),
    decision: 'none',
    correlationId: context.requestId,
    // Signals that would say more come later; until then nothing is known against anyone.
    posture: 'unknown',
    cause: 'none',
    taskId: task.id,
    grantId: null,
    decisionId: null,
    txn: task.txn,
    policyDigest,
    payload: {},
    ...details,
  };
}

/** The digest of the revision in force. Ending goes on without one: then `none`. */
export function digestInForce(catalog: {
  readonly ready: boolean;
  current(): { readonly catalog: { readonly digest: string } };
}): string {
  return catalog.ready ? catalog.current().catalog.digest : 'none';
}

/** An event about one grant of a task. */
export function grantEvent(
  type: AuditEventType,
  task: About,
  grant: Pick<Grant, 'id' | 'entitlement' | 'target' | 'handle' | 'decisionId'>,
  policyDigest: string,
  context: Pick<CallContext, 'requestId'>,
  details: Details = {},
): AuditEvent {
  return taskEvent(type, task, policyDigest, context, {
    resource: grant.entitlement,
    grantId: grant.id,
    decisionId: grant.decisionId,
    ...details,
    payload: { target: grant.target, handle: grant.handle, ...details.payload },
  });
}

/** An event that an operator caused. @param behalf On whose behalf the task was that it is about; of none, the operator. */
export function operatorEvent(
  type: AuditEventType,
  catalog: Parameters<typeof digestInForce>[0],
  context: Pick<CallContext, 'requestId'>,
  operator: string,
  details: Pick<AuditEvent, 'resource' | 'payload'> &
    Partial<Pick<AuditEvent, 'agent' | 'cause' | 'taskId' | 'grantId' | 'txn'>> & { readonly behalf?: string },
): AuditEvent {
  const { behalf, payload, ...rest } = details;
  return {
    type,
    agent: 'none',
    subject: behalf ?? operator,
    action: type.slice(type.indexOf('.') + 1),
    decision: 'none',
    correlationId: context.requestId,
    posture: 'unknown',
    cause: 'none',
    taskId: null,
    grantId: null,
    decisionId: null,
    txn: null,
    policyDigest: digestInForce(catalog),
    ...rest,
    payload: { ...payload, by: operator },
  };
}
