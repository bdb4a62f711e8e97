import type { AuditEvent, AuditEventType } from '../domain/audit-event.ts';
import type { GrantId, RevocationId } from '../domain/ids.ts';
import type { EndedBy } from '../domain/task.ts';
import type { EventSubject } from '../store/event-subject.ts';
import type { RevocationDeps } from './deps.ts';

interface About extends EventSubject {
  readonly grantId: GrantId;
  readonly id?: RevocationId;
  readonly handle?: string;
  readonly claimNumber?: bigint;
  readonly endedBy?: EndedBy;
}

/** An event that the engine causes: nobody called, so the worker and its claim are the correlation. */
export function engineEvent(
  type: AuditEventType,
  deps: Pick<RevocationDeps, 'policyDigest' | 'worker'>,
  target: string,
  about: About,
  payload: AuditEvent['payload'],
): AuditEvent {
  return {
    type,
    agent: about.agent,
    subject: about.subject,
    resource: about.entitlement,
    action: type.slice(type.indexOf('.') + 1),
    decision: 'none',
    correlationId: about.claimNumber === undefined ? deps.worker : `${deps.worker}#${about.claimNumber}`,
    posture: 'unknown',
    cause: about.endedBy ?? 'none',
    taskId: about.taskId,
    grantId: about.grantId,
    decisionId: null,
    txn: about.txn,
    policyDigest: deps.policyDigest(),
    payload: {
      target,
      ...(about.handle === undefined ? {} : { handle: about.handle }),
      ...(about.id === undefined ? {} : { revocation_id: `rev_${about.id}` }),
      ...payload,
    },
  };
}

/** An event about a target as a whole. */
export function targetEvent(
  type: AuditEventType,
  deps: Pick<RevocationDeps, 'policyDigest' | 'worker'>,
  target: string,
  payload: AuditEvent['payload'],
): AuditEvent {
  return {
    ...{ type, agent: 'none', subject: 'none', resource: target, action: type.slice(type.indexOf('.') + 1) },
    ...{ decision: 'none', correlationId: deps.worker, posture: 'unknown', cause: 'none' },
    ...{ taskId: null, grantId: null, decisionId: null, txn: null, policyDigest: deps.policyDigest(), payload },
  };
}
