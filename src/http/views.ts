import type { Cut } from '../broker/life.ts';
import type { TaskView } from '../broker/read.ts';
import { wireId } from '../domain/ids.ts';
import { type Task, workloadId } from '../domain/task.ts';
import type { Pending } from '../broker/ask-approval.ts';
import type { GrantWithRevocation, ReadGrant } from '../store/grants.ts';
import type { StoredEvent } from '../store/timeline.ts';
import type {
  EventBody,
  GrantBody,
  IssuedBody,
  PendingBody,
  RevocationLine,
  TaskBody,
  TaskStanding,
} from './answers.ts';

/** DESIGN §4, Bodies: the task, its grants, its children. */
export function viewOfTask({ task, grants, children }: TaskView): TaskBody {
  return { ...standingOf(task), grants: grants.map(viewOfGrant), children: children.map(standingOf) };
}

/** A task without what it holds. */
export function standingOf(task: Task): TaskStanding {
  return {
    id: wireId('task', task.id),
    external_id: task.externalId,
    state: task.state,
    purpose: task.purpose,
    phase: task.phase,
    subject: task.subject,
    workload: workloadId(task.workload),
    parent_id: task.parentId === null ? null : wireId('task', task.parentId),
    created_at: task.createdAt.toISOString(),
    not_after: task.notAfter.toISOString(),
    ...(task.endedBy === null ? {} : { ended_by: task.endedBy }),
  };
}

/** DESIGN §4, Bodies: the grant, and the obligation to end it. */
export function viewOfGrant({ grant, revocation }: ReadGrant): GrantBody {
  return revocation === null ? viewOfUnminted(grant) : viewOfMinted({ grant, revocation });
}

/** One of which something was made. */
export function viewOfMinted({ grant, revocation }: GrantWithRevocation): IssuedBody['grant'] {
  return {
    ...viewOfUnminted(grant),
    deadline: grant.deadline.toISOString(),
    revocation: {
      id: wireId('rev', revocation.id),
      state: revocation.state,
      due_at: revocation.dueAt.toISOString(),
      attempts: revocation.attempts,
      ...(revocation.lastError === null ? {} : { last_error: revocation.lastError }),
      ...(revocation.evidence === null ? {} : { evidence: { ...revocation.evidence } }),
    },
  };
}

function viewOfUnminted(grant: ReadGrant['grant']): PendingBody['grant'] {
  return {
    id: wireId('grt', grant.id),
    task_id: wireId('task', grant.taskId),
    entitlement: grant.entitlement,
    target: grant.target,
    params: { ...grant.params },
    state: grant.state,
    ...(grant.perCall ? { per_call: true as const } : {}),
    guarantee: { ...grant.guarantee },
    decision_id: wireId('dec', grant.decisionId),
    created_at: grant.createdAt.toISOString(),
    ...(grant.endedBy === null ? {} : { ended_by: grant.endedBy }),
  };
}

/** What a grant waits for, in its owner's eyes. */
export function viewOfPending({ pending, approval }: Pending): PendingBody {
  const { id, groups, expiresAt } = approval;
  return {
    grant: viewOfUnminted(pending),
    approval: { id: wireId('apr', id), groups: [...groups], expires_at: expiresAt.toISOString() },
  };
}

/** One line of an ending: what is taken back where, and how far it got. */
export function lineOfRevocation({ grant, revocation }: GrantWithRevocation): RevocationLine {
  return {
    id: wireId('rev', revocation.id),
    grant_id: wireId('grt', grant.id),
    target: grant.target,
    state: revocation.state,
    ...(revocation.evidence === null ? {} : { evidence: { ...revocation.evidence } }),
  };
}

export function viewOfEvent(event: StoredEvent): EventBody {
  return {
    id: wireId('evt', event.id),
    ts: event.ts.toISOString(),
    type: event.type,
    agent: event.agent,
    subject: event.subject,
    resource: event.resource,
    action: event.action,
    decision: event.decision,
    correlation_id: event.correlationId,
    posture: event.posture,
    cause: event.cause,
    task_id: event.taskId === null ? null : wireId('task', event.taskId),
    grant_id: event.grantId === null ? null : wireId('grt', event.grantId),
    decision_id: event.decisionId === null ? null : wireId('dec', event.decisionId),
    txn: event.txn,
    policy_digest: event.policyDigest,
    payload: { ...event.payload },
  };
}

/** What was cut from the life asked for; nothing when nothing was. */
export function viewOfCut(cut: Cut | null): Pick<IssuedBody, 'cut'> {
  return cut === null
    ? {}
    : { cut: { by: cut.by, asked_seconds: cut.askedSeconds, granted_seconds: cut.grantedSeconds } };
}
