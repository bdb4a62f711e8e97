import { CountedRoom } from './counted-room.ts';
import type { Queryable } from './database.ts';

/** How many tasks of each issuer are alive. */
export class TasksAlive extends CountedRoom {
  /** @param most For each issuer. */
  constructor(db: Queryable, most: number) {
    super(async (issuer, limit) => {
      const [row] = await db.query<{ alive: number }>({
        name: 'count_tasks_alive',
        text: `SELECT count(*)::int AS alive FROM (
          SELECT FROM mayfly.tasks WHERE issuer = $1 AND state IN ('offered', 'active', 'suspended') LIMIT $2) t`,
        values: [issuer, limit],
      });
      return row?.alive ?? 0;
    }, most);
  }
}
