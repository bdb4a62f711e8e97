import { CountedRoom } from './counted-room.ts';
import type { Queryable } from './database.ts';

/** How many evaluations each task was asked about with in its life. */
export class TaskEvaluations extends CountedRoom {
  /** @param most For each task. */
  constructor(db: Queryable, most: number) {
    super(async (taskId, limit) => {
      const [row] = await db.query<{ evaluations: number }>({
        name: 'count_task_evaluations',
        text: `SELECT count(*)::int AS evaluations FROM (
          SELECT FROM mayfly.decisions WHERE task_id = $1 AND action = 'evaluate' LIMIT $2) d`,
        values: [taskId, limit],
      });
      return row?.evaluations ?? 0;
    }, most);
  }
}
