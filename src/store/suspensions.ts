import type { TaskId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { TASK_COLUMNS, type TaskRow, toTask } from './tasks.ts';

/** Whose tasks they are. */
export type TasksOf =
  | { readonly id: TaskId }
  | { readonly workload: { readonly source: string; readonly subject: string } }
  | { readonly issuer: string; readonly subject: string };

/** Whose tasks are suspended for a cause. */
export interface Suspending {
  readonly of: TasksOf;
  readonly cause: string;
}

/**
 * Holds all tasks that these may move, in the order of their ids, as all that end several take them: before several causes are moved in
 * one transaction, which take their tasks one after another.
 */
export async function holdTasks(
  tx: Transaction,
  suspending: readonly TasksOf[],
  resuming: readonly string[],
): Promise<void> {
  const of = suspending.map((one) =>
    'workload' in one ? { source: one.workload.source, workload: one.workload.subject } : one,
  );
  await tx.query({
    name: 'hold_tasks_of',
    text: `WITH who AS (SELECT * FROM jsonb_to_recordset($1) AS w (id uuid, source text, workload text, issuer text, subject text))
      SELECT FROM mayfly.tasks t WHERE t.id IN (
        SELECT a.id FROM who w JOIN mayfly.tasks a ON a.id = w.id WHERE a.state IN ('active', 'suspended')
        UNION SELECT a.id FROM who w JOIN mayfly.tasks a ON a.workload_subject = w.workload AND a.workload_source = w.source WHERE a.state IN ('active', 'suspended')
        UNION SELECT a.id FROM who w JOIN mayfly.tasks a ON a.issuer = w.issuer AND a.subject = w.subject WHERE a.state IN ('active', 'suspended')
        UNION SELECT s.task_id FROM mayfly.suspensions s WHERE s.cause = ANY($2)) ORDER BY t.id FOR NO KEY UPDATE`,
    values: [JSON.stringify(of), resuming],
  });
}

/**
 * `active → suspended`, for this cause: those that another one suspended before stay so for both. Answers those that were active. No
 * birth may run beside it.
 */
export async function suspendTasks(tx: Transaction, { of, cause }: Suspending): Promise<Task[]> {
  // First held, and only then looked at: whoever resumes one at this moment is waited for, and it is suspended after that.
  await holdTasks(tx, [of], []);
  const { condition, values } = conditionOf(of);
  const rows = await tx.query<TaskRow>({
    text: `WITH hit AS (SELECT t.id FROM mayfly.tasks t WHERE t.state IN ('active', 'suspended') AND ${condition}),
      noted AS (INSERT INTO mayfly.suspensions (task_id, cause, since) SELECT id, $1, $2 FROM hit ON CONFLICT DO NOTHING)
      UPDATE mayfly.tasks t SET state = 'suspended' FROM hit h WHERE t.id = h.id AND t.state = 'active' RETURNING ${TASK_COLUMNS}`,
    values: [cause, tx.now, ...values],
  });
  return rows.map(toTask);
}

/** This is no cause any more: those that no other one suspends are active again, and answered. */
export async function resumeCause(tx: Transaction, cause: string): Promise<Task[]> {
  const held = await tx.query<{ id: TaskId }>({
    // The task's own row first: whoever suspends it for another cause at this moment holds it until that cause is to be seen.
    text: `SELECT t.id FROM mayfly.tasks t WHERE t.id IN (SELECT task_id FROM mayfly.suspensions WHERE cause = $1) ORDER BY t.id FOR NO KEY UPDATE`,
    values: [cause],
  });
  if (held.length === 0) return [];
  await tx.query({ text: 'DELETE FROM mayfly.suspensions WHERE cause = $1', values: [cause] });
  return await resumeFree(
    tx,
    held.map(({ id }) => id),
  );
}

/** Whatever the causes were. Answers it if it was suspended. */
export async function resumeTask(tx: Transaction, id: TaskId): Promise<Task | undefined> {
  await tx.query({ text: 'SELECT FROM mayfly.tasks WHERE id = $1 FOR NO KEY UPDATE', values: [id] });
  await tx.query({ text: 'DELETE FROM mayfly.suspensions WHERE task_id = $1', values: [id] });
  return (await resumeFree(tx, [id]))[0];
}

async function resumeFree(tx: Transaction, ids: readonly TaskId[]): Promise<Task[]> {
  const rows = await tx.query<TaskRow>({
    text: `UPDATE mayfly.tasks t SET state = 'active' WHERE t.id = ANY($1) AND t.state = 'suspended'
        AND NOT EXISTS (SELECT FROM mayfly.suspensions s WHERE s.task_id = t.id) RETURNING ${TASK_COLUMNS}`,
    values: [ids],
  });
  return rows.map(toTask);
}

/** Of `mayfly.tasks t`, from $3 on. */
function conditionOf(of: TasksOf): { readonly condition: string; readonly values: readonly string[] } {
  if ('id' in of) return { condition: 't.id = $3', values: [of.id] };
  if ('workload' in of)
    return {
      condition: 't.workload_subject = $4 AND t.workload_source = $3',
      values: [of.workload.source, of.workload.subject],
    };
  return { condition: 't.issuer = $3 AND t.subject = $4', values: [of.issuer, of.subject] };
}

/** Tasks that word of one kind of one source suspends. */
export interface SuspendedBy {
  readonly source: string;
  readonly kind: string;
  readonly tasks: number;
}

/** By whose word tasks are suspended now. What operators have suspended is not among it. */
export async function countSuspended(db: Queryable): Promise<readonly SuspendedBy[]> {
  return await db.query<{ source: string; kind: string; tasks: number }>({
    text: `SELECT split_part(cause, ' ', 1) AS source, split_part(cause, ' ', 2) AS kind, count(DISTINCT task_id)::int AS tasks
      FROM mayfly.suspensions s JOIN mayfly.tasks t ON t.id = s.task_id WHERE s.cause <> 'operator' AND t.state = 'suspended'
      GROUP BY 1, 2 ORDER BY 1, 2`,
    values: [],
  });
}
