import type { TaskId } from '../domain/ids.ts';

/** Who and what an audit event of the worker is about. */
export interface EventSubject {
  readonly taskId: TaskId;
  readonly agent: string;
  readonly subject: string;
  readonly txn: string | null;
  readonly entitlement: string;
}
export type EventRow = { task_id: TaskId; agent: string; subject: string; txn: string | null; entitlement: string };
export const EVENT_COLUMNS =
  "t.id AS task_id, t.workload_source || ':' || t.workload_subject AS agent, CASE WHEN t.subject = t.workload_subject THEN 'self' ELSE t.subject END AS subject, t.txn";
export function subjectOf(row: EventRow): EventSubject {
  return { taskId: row.task_id, agent: row.agent, subject: row.subject, txn: row.txn, entitlement: row.entitlement };
}
