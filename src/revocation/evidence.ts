import type { AuditEvent, AuditEventType } from '../domain/audit-event.ts';
import type { GrantId } from '../domain/ids.ts';
import type { EventSubject } from '../store/event-subject.ts';

/** An event that the engine causes: nobody called, so the worker and its claim are the correlation. */
export function engineEvent(
  type: AuditEventType,
  about: EventSubject & { readonly grantId: GrantId },
  correlationId: string,
  policyDigest: string,
  cause: string,
  payload: AuditEvent['payload'],
): AuditEvent {
  return {
    type,
    agent: about.agent,
    subject: about.subject,
    resource: about.entitlement,
    action: type.slice(type.indexOf('.') + 1),
    decision: 'none',
    correlationId,
    posture: 'unknown',
    cause,
    taskId: about.taskId,
    grantId: about.grantId,
    decisionId: null,
    txn: about.txn,
    policyDigest,
    payload,
  };
}
