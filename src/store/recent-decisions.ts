import type { DecisionId, TaskId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';

/** A decision, with what it was made from. */
export interface RecentDecision {
  readonly id: DecisionId;
  /** Null: it was about nobody's task. */
  readonly taskId: TaskId | null;
  readonly action: string;
  readonly resource: string;
  readonly permitted: boolean;
  readonly inputs: Readonly<Record<string, unknown>>;
}

/** Ids tell the time of the replica that gave them: it may differ from the store's by so much. */
const SKEW_MILLIS = 600_000;

/** The first id that a decision of that time can have (RFC 9562 §5.7). */
function idFrom(time: Date): string {
  const hex = Math.max(0, time.getTime() - SKEW_MILLIS)
    .toString(16)
    .padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7000-8000-000000000000`;
}

/** A page of the decisions since a moment of the store's clock, the latest first. */
export async function listRecentDecisions(
  db: Queryable,
  since: Date,
  before: DecisionId | null,
  limit: number,
): Promise<RecentDecision[]> {
  const rows = await db.query<{
    id: DecisionId;
    task_id: TaskId | null;
    action: string;
    resource: string;
    permitted: boolean;
    inputs: RecentDecision['inputs'];
  }>({
    name: 'list_recent_decisions',
    text: `SELECT id, task_id, action, resource, permitted, inputs FROM mayfly.decisions
      WHERE id >= $1 AND ($2::uuid IS NULL OR id < $2) AND decided_at >= $3 ORDER BY id DESC LIMIT $4`,
    values: [idFrom(since), before, since, limit],
  });
  return rows.map(({ task_id: taskId, ...row }) => ({ ...row, taskId }));
}

/** So long ago, by the store's clock. */
export async function storeTimeBefore(db: Queryable, seconds: number): Promise<Date> {
  const [row] = await db.query<{ then: Date }>({
    text: 'SELECT clock_timestamp() - make_interval(secs => $1) AS then',
    values: [seconds],
  });
  if (row === undefined) throw new Error('The store did not tell its clock.');
  return row.then;
}
