import type { TaskId } from '../domain/ids.ts';
import type { Workload } from '../domain/task.ts';
import type { Queryable } from './database.ts';

/** On whose behalf a task is, by whose word, and who acts. */
export interface TaskParty {
  readonly taskId: TaskId;
  readonly issuer: string;
  readonly subject: string;
  readonly workload: Workload;
}

/** Of a task and all that it hangs on, the task itself first. */
export async function listParties(db: Queryable, id: TaskId): Promise<TaskParty[]> {
  const rows = await db.query<{
    id: TaskId;
    issuer: string;
    subject: string;
    workload_source: string;
    workload_subject: string;
  }>({
    text: `WITH RECURSIVE above AS (
        SELECT t.id, t.parent_id, 0 AS up FROM mayfly.tasks t WHERE t.id = $1
        UNION ALL SELECT t.id, t.parent_id, a.up + 1 FROM above a JOIN mayfly.tasks t ON t.id = a.parent_id)
      SELECT t.id, t.issuer, t.subject, t.workload_source, t.workload_subject FROM above a JOIN mayfly.tasks t USING (id) ORDER BY a.up`,
    values: [id],
  });
  return rows.map((row) => ({
    taskId: row.id,
    issuer: row.issuer,
    subject: row.subject,
    workload: { source: row.workload_source, subject: row.workload_subject },
  }));
}
