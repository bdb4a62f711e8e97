import type { TaskId } from '../domain/ids.ts';
import { type Task, type Workload, workloadId } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { TASK_COLUMNS, type TaskRow, toTask } from './tasks.ts';

/** How many tasks there ever were in a tree, its root among them; and whether a kill stands that names the workload of one more. */
export async function readTree(
  tx: Transaction,
  rootId: TaskId,
  workload: Workload,
): Promise<{ readonly tasks: number; readonly killed: boolean }> {
  const rows = await tx.query<{ tasks: number; killed: boolean }>({
    name: 'read_tree',
    text: `SELECT count(*)::integer AS tasks, mayfly.is_killed($2, NULL, NULL, NULL, NULL) AS killed FROM mayfly.tasks WHERE root_id = $1`,
    values: [rootId, workloadId(workload)],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('The store did not say how large a tree is.');
  return row;
}

/**
 * `offered → active`, while the offer stands. Undefined when it lapsed.
 * @param instance The copy that claims it: it owns the task where no key does.
 */
export async function claimOffered(tx: Transaction, id: TaskId, instance: string | null): Promise<Task | undefined> {
  const rows = await tx.query<TaskRow>({
    name: 'claim_offered',
    text: `UPDATE mayfly.tasks t SET state = 'active', instance = $2 WHERE id = $1 AND state = 'offered' AND claim_by > $3
      RETURNING ${TASK_COLUMNS}`,
    values: [id, instance, tx.now],
  });
  return rows[0] && toTask(rows[0]);
}

/** Moves a task to another phase, and with it what follows it. The root's exclusive lock must be held. Answers what moved. */
export async function movePhase(tx: Transaction, id: TaskId, phase: string): Promise<Task[]> {
  const rows = await tx.query<TaskRow>({
    name: 'move_phase',
    text: `UPDATE mayfly.tasks t SET phase = $2 FROM mayfly.subtree($1) s WHERE t.id = s.id AND s.follows AND t.ended_at IS NULL
      RETURNING ${TASK_COLUMNS}`,
    values: [id, phase],
  });
  return rows.map(toTask);
}

/** What hangs on a task, at most so many, parents before their children. */
export async function listDescendants(db: Queryable, id: TaskId, limit: number): Promise<Task[]> {
  const rows = await db.query<TaskRow>({
    name: 'list_descendants',
    text: `SELECT ${TASK_COLUMNS} FROM mayfly.tasks t JOIN mayfly.subtree($1) s USING (id) WHERE s.below > 0
      ORDER BY s.below, t.id LIMIT $2`,
    values: [id, limit],
  });
  return rows.map(toTask);
}
