import type { AuditEvent } from '../domain/audit-event.ts';
import type { EventId, GrantId, TaskId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';

export interface StoredEvent extends Omit<AuditEvent, 'type'> {
  readonly id: EventId;
  readonly ts: Date;
  readonly type: string;
}

type Row = {
  id: EventId;
  ts: Date;
  type: string;
  agent: string;
  subject: string;
  resource: string;
  action: string;
  decision: AuditEvent['decision'];
  correlation_id: string;
  posture: string;
  cause: string;
  task_id: AuditEvent['taskId'];
  grant_id: AuditEvent['grantId'];
  decision_id: AuditEvent['decisionId'];
  txn: string | null;
  policy_digest: string;
  payload: AuditEvent['payload'];
};

/** How many events a task has, as far as that many. */
export async function countTaskEvents(db: Queryable, taskId: TaskId, limit: number): Promise<number> {
  const [row] = await db.query<{ count: number }>({
    name: 'count_task_events',
    text: 'SELECT count(*)::integer AS count FROM (SELECT FROM mayfly.audit_events WHERE task_id = $1 LIMIT $2) t',
    values: [taskId, limit],
  });
  return row?.count ?? 0;
}

/** The evidence of one task, or of one of its grants, in order of time; the latest, where there is more than the limit. */
export async function listTaskEvents(
  db: Queryable,
  taskId: TaskId,
  limit: number,
  grantId: GrantId | null = null,
): Promise<StoredEvent[]> {
  const rows = await db.query<Row>({
    text: `SELECT id, ts, type, agent, subject, resource, action, decision, correlation_id, posture, cause, task_id, grant_id, decision_id, txn,
        policy_digest, payload FROM (SELECT * FROM mayfly.audit_events WHERE task_id = $1 AND ($3::uuid IS NULL OR grant_id = $3)
        ORDER BY ts DESC, id DESC LIMIT $2) latest
      ORDER BY ts, id`,
    values: [taskId, limit, grantId],
  });
  return rows.map((row) => ({
    id: row.id,
    ts: row.ts,
    type: row.type,
    agent: row.agent,
    subject: row.subject,
    resource: row.resource,
    action: row.action,
    decision: row.decision,
    correlationId: row.correlation_id,
    posture: row.posture,
    cause: row.cause,
    taskId: row.task_id,
    grantId: row.grant_id,
    decisionId: row.decision_id,
    txn: row.txn,
    policyDigest: row.policy_digest,
    payload: row.payload,
  }));
}
