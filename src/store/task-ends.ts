import type { TaskId } from '../domain/ids.ts';
import type { EndedBy, Task, TaskState } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { TASK_COLUMNS, type TaskRow, toTask } from './tasks.ts';

export interface EndedTasks {
  readonly tasks: readonly Task[];
  /** Some of them wait for approvals. */
  readonly wait: boolean;
}

/**
 * Ends what is still alive of the subtree below and with `id`. The root's exclusive lock must be held. Only what is over expires; an
 * offer that nobody claimed can not be completed.
 */
export async function endSubtree(tx: Transaction, id: TaskId, state: TaskState, endedBy: EndedBy): Promise<EndedTasks> {
  const rows = await tx.query<TaskRow & { waits: boolean }>({
    text: `UPDATE mayfly.tasks t SET ended_at = $4,
        state = CASE WHEN t.state = 'offered' THEN 'cancelled' WHEN s.below = 0 THEN $2 ELSE 'revoked' END,
        ended_by = CASE WHEN s.below = 0 THEN $3 ELSE 'parent_ended' END
      FROM mayfly.subtree($1) s, mayfly.tasks top
      WHERE t.id = s.id AND t.state IN ('offered', 'active', 'suspended') AND top.id = $1 AND CASE $2 WHEN 'completed' THEN top.state <> 'offered'
        WHEN 'expired' THEN top.not_after <= $4 OR (top.state = 'offered' AND top.claim_by <= $4) ELSE true END
      RETURNING ${TASK_COLUMNS}, EXISTS (SELECT FROM mayfly.approvals a WHERE a.task_id = t.id AND a.state IN ('pending', 'approved')) AS waits`,
    values: [id, state, endedBy, tx.now],
  });
  return { tasks: rows.map(toTask), wait: rows.some(({ waits }) => waits) };
}

/** Tasks that have outlived their `not_after`, and offers that nobody claimed in time; of either the oldest first. */
export async function findExpiredTasks(db: Queryable, limit: number): Promise<{ id: TaskId; rootId: TaskId }[]> {
  const rows = await db.query<{ id: TaskId; root_id: TaskId }>({
    name: 'find_expired_tasks',
    text: `(SELECT id, root_id FROM mayfly.tasks WHERE state IN ('active', 'suspended') AND not_after <= (SELECT clock_timestamp())
        ORDER BY not_after LIMIT $1)
      UNION ALL (SELECT id, root_id FROM mayfly.tasks WHERE state = 'offered' AND claim_by <= (SELECT clock_timestamp()) ORDER BY claim_by LIMIT $1)
      LIMIT $1`,
    values: [limit],
  });
  return rows.map((row) => ({ id: row.id, rootId: row.root_id }));
}
