import type { Guarantee } from '../domain/grant.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import { type TaskRow, TASK_COLUMNS, toTask } from './tasks.ts';
import type { Task } from '../domain/task.ts';
import type { Queryable } from './database.ts';

/** Whose reach it is. */
export type ReachOf =
  | { readonly kind: 'workload'; readonly id: string }
  | { readonly kind: 'task'; readonly id: TaskId }
  | { readonly kind: 'entitlement'; readonly id: string };

const LIVES = `('offered', 'active', 'suspended')`;
const UNCONTAINED = `('minting', 'active', 'revoking')`;

/** What is looked at first: by `$1`, and below it whatever it delegated to. Of an entitlement nothing else hangs on that. */
const begins: Readonly<Record<ReachOf['kind'], string>> = {
  workload: `SELECT t.id FROM mayfly.tasks t WHERE t.state IN ${LIVES} AND t.workload_source || ':' || t.workload_subject = $1
    UNION SELECT g.task_id FROM mayfly.grants g WHERE g.workload = $1 AND g.state IN ${UNCONTAINED}`,
  task: 'SELECT $1::uuid AS id',
  entitlement: `SELECT t.id FROM mayfly.tasks t WHERE t.state IN ${LIVES} AND t.ceiling->'entitlements' ? $1
    UNION SELECT g.task_id FROM mayfly.grants g WHERE g.entitlement = $1 AND g.target = split_part($1, '/', 1) AND g.state IN ${UNCONTAINED}`,
};

/**
 * Tasks that live or whose grants are not yet contained, with `in_scope`: all that such a task may ask for is in scope. Of others only
 * grants are anybody's to see who has their targets. `$2` the targets in scope, null: all. `$3` the entitlement that alone counts.
 */
function chosen(kind: ReachOf['kind']): string {
  const below = kind === 'entitlement' ? '' : 'CROSS JOIN LATERAL mayfly.subtree(b.id) s';
  return `WITH begun AS (${begins[kind]}),
    chosen AS (SELECT DISTINCT ${kind === 'entitlement' ? 'b.id' : 's.id'} AS id FROM begun b ${below}),
    held AS (
      SELECT g.* FROM mayfly.grants g JOIN chosen c ON c.id = g.task_id
      WHERE g.state IN ${UNCONTAINED} AND ($2::text[] IS NULL OR g.target = ANY($2)) AND ($3::text IS NULL OR g.entitlement = $3)),
    seen AS (
      SELECT t.id, t.state IN ${LIVES} AND ($2::text[] IS NULL OR (t.ceiling->'entitlements' <> '[]' AND NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(t.ceiling->'entitlements') e WHERE split_part(e, '/', 1) <> ALL($2)))) AS in_scope
      FROM mayfly.tasks t JOIN chosen c ON c.id = t.id)`;
}

export interface ReachedTask {
  readonly task: Task;
  /** It lives, and the caller may see what it could ask for. */
  readonly inScope: boolean;
}

function values(of: ReachOf, within: readonly string[] | null): readonly unknown[] {
  return [of.id, within, of.kind === 'entitlement' ? of.id : null];
}

/** How much there is in all. */
export async function countReach(
  db: Queryable,
  of: ReachOf,
  within: readonly string[] | null,
): Promise<{ readonly tasks: number; readonly grants: number }> {
  const [row] = await db.query<{ tasks: number; grants: number }>({
    text: `${chosen(of.kind)} SELECT (SELECT count(*)::int FROM seen WHERE in_scope OR id IN (SELECT task_id FROM held)) AS tasks,
      (SELECT count(*)::int FROM held) AS grants`,
    values: values(of, within),
  });
  return row ?? { tasks: 0, grants: 0 };
}

/** A page of them, by their ids. */
export async function listReached(
  db: Queryable,
  of: ReachOf,
  within: readonly string[] | null,
  after: TaskId | null,
  limit: number,
): Promise<ReachedTask[]> {
  const rows = await db.query<TaskRow & { in_scope: boolean }>({
    text: `${chosen(of.kind)} SELECT ${TASK_COLUMNS}, s.in_scope FROM seen s JOIN mayfly.tasks t ON t.id = s.id
      WHERE (s.in_scope OR s.id IN (SELECT task_id FROM held)) AND ($4::uuid IS NULL OR s.id > $4) ORDER BY s.id LIMIT $5`,
    values: [...values(of, within), after, limit],
  });
  return rows.map((row) => ({ task: toTask(row), inScope: row.in_scope }));
}

/** A grant that is not yet contained: what it gives can be used. */
export interface HeldGrant {
  readonly id: GrantId;
  readonly taskId: TaskId;
  readonly entitlement: string;
  readonly target: string;
  readonly state: 'minting' | 'active' | 'revoking';
  readonly until: Date;
  readonly guarantee: Guarantee['revocation'];
  /** Begin of the youngest session that was seen in the target. */
  readonly usedSince: Date | null;
}

/** Of each of these tasks the first `limit`, and how many it has. */
export async function listHeld(
  db: Queryable,
  of: ReachOf,
  within: readonly string[] | null,
  taskIds: readonly TaskId[],
  limit: number,
): Promise<{ readonly grants: readonly HeldGrant[]; readonly totals: ReadonlyMap<TaskId, number> }> {
  const rows = await db.query<{
    id: GrantId;
    task_id: TaskId;
    entitlement: string;
    target: string;
    state: HeldGrant['state'];
    deadline: Date;
    guarantee: HeldGrant['guarantee'];
    used_since: Date | null;
    total: number;
  }>({
    text: `SELECT * FROM (
        SELECT g.id, g.task_id, g.entitlement, g.target, g.state, g.deadline, g.guarantee->>'revocation' AS guarantee, s.used_since,
          row_number() OVER (PARTITION BY g.task_id ORDER BY g.id) AS place, (count(*) OVER (PARTITION BY g.task_id))::int AS total
        FROM mayfly.grants g LEFT JOIN mayfly.grant_sightings s ON s.grant_id = g.id
        WHERE g.task_id = ANY($1) AND g.state IN ${UNCONTAINED} AND ($2::text[] IS NULL OR g.target = ANY($2))
          AND ($3::text IS NULL OR g.entitlement = $3)) held
      WHERE place <= $4 ORDER BY task_id, id`,
    values: [taskIds, within, of.kind === 'entitlement' ? of.id : null, limit],
  });
  return {
    grants: rows.map((row) => ({
      ...{ id: row.id, taskId: row.task_id, entitlement: row.entitlement, target: row.target, state: row.state },
      ...{ until: row.deadline, guarantee: row.guarantee, usedSince: row.used_since },
    })),
    totals: new Map(rows.map((row) => [row.task_id, row.total])),
  };
}

/** Of these entitlements those that nobody gets now, and why: a kill stands, or their target is paused. */
export async function findStopped(
  db: Queryable,
  entitlements: readonly string[],
): Promise<ReadonlyMap<string, 'killed' | 'target_paused'>> {
  const rows = await db.query<{ entitlement: string; killed: boolean; paused: boolean }>({
    text: `SELECT e AS entitlement, mayfly.is_killed(NULL, NULL, NULL, e, split_part(e, '/', 1)) AS killed,
        EXISTS (SELECT FROM mayfly.target_controls c WHERE c.target = split_part(e, '/', 1) AND c.paused) AS paused
      FROM unnest($1::text[]) e`,
    values: [entitlements],
  });
  return new Map(
    rows.flatMap(({ entitlement, killed, paused }) =>
      killed || paused ? [[entitlement, killed ? 'killed' : 'target_paused'] as const] : [],
    ),
  );
}
