import type { Guarantee, Grant } from '../domain/grant.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import type { Queryable, Transaction } from './database.ts';

/** A living grant, with what is needed to decide whether it stays. */
export type Living = Pick<Grant, 'id' | 'taskId' | 'entitlement' | 'target' | 'handle' | 'deadline' | 'decisionId'> & {
  readonly guarantee: Guarantee['revocation'];
  /** It is counted in `sensitiveSinks` itself. */
  readonly sink: boolean;
};

type LivingRow = {
  id: GrantId;
  task_id: TaskId;
  entitlement: string;
  target: string;
  handle: string;
  deadline: Date;
  decision_id: Grant['decisionId'];
  guarantee: Guarantee['revocation'];
  sink: boolean;
};

const COLUMNS = `g.id, g.task_id, g.entitlement, g.target, g.handle, g.deadline, g.decision_id, g.guarantee->>'revocation' AS guarantee, g.sink`;
/** As in the index `grants_to_decide`. */
const DECIDED = 'coalesce(g.retained_revision, g.decided_revision)';
const LIVES = `g.state IN ('minting', 'active')`;

/**
 * Takes living grants that were not decided under this revision, those of the earliest one first and of these the ones that would
 * live longest. What another replica has in hand is passed over.
 * @param except What was tried before in this pass.
 */
export async function claimUndecided(
  tx: Transaction,
  revision: number,
  limit: number,
  except: readonly GrantId[],
): Promise<Living[]> {
  const rows = await tx.query<LivingRow>({
    name: 'claim_undecided',
    text: `SELECT ${COLUMNS} FROM mayfly.grants g WHERE ${LIVES} AND ${DECIDED} < $1 AND g.id <> ALL($3)
      ORDER BY ${DECIDED}, g.deadline DESC LIMIT $2 FOR NO KEY UPDATE OF g SKIP LOCKED`,
    values: [revision, limit, except],
  });
  return rows.map(toLiving);
}

/** These stay, by this revision. */
export async function markRetained(tx: Transaction, ids: readonly GrantId[], revision: number): Promise<void> {
  await tx.query({
    name: 'mark_retained',
    text: 'UPDATE mayfly.grants SET retained_revision = $2 WHERE id = ANY($1)',
    values: [ids, revision],
  });
}

/** What lives on this task and below it is to be decided again. */
export async function markUndecided(tx: Transaction, taskId: TaskId): Promise<void> {
  await tx.query({
    name: 'mark_undecided',
    // In the order of their ids, as all that end or contain several take them.
    text: `WITH held AS (
        SELECT g.id FROM mayfly.grants g WHERE g.task_id IN (SELECT id FROM mayfly.subtree($1)) AND ${LIVES} ORDER BY g.id FOR NO KEY UPDATE)
      UPDATE mayfly.grants g SET retained_revision = 0 FROM held h WHERE g.id = h.id`,
    values: [taskId],
  });
}

/** Where a page of living grants ended. */
export interface LivingPlace {
  readonly target: string;
  readonly handle: string;
}

/** A page of all living grants. */
export async function listLiving(db: Queryable, after: LivingPlace | null, limit: number): Promise<Living[]> {
  const rows = await db.query<LivingRow>({
    name: 'list_living',
    text: `SELECT ${COLUMNS} FROM mayfly.grants g WHERE ${LIVES} AND (g.target, g.handle COLLATE "C") > ($1, $2)
      ORDER BY g.target, g.handle COLLATE "C" LIMIT $3`,
    values: [after?.target ?? '', after?.handle ?? '', limit],
  });
  return rows.map(toLiving);
}

/** Whole trees that still live and whose issuer is none of these. */
export async function findTasksOfOthers(db: Queryable, issuers: readonly string[], limit: number): Promise<TaskId[]> {
  const rows = await db.query<{ id: TaskId }>({
    name: 'find_tasks_of_others',
    // From issuer to issuer by the index: what it costs hangs on how many there are, not on their tasks.
    text: `WITH RECURSIVE others AS (
        SELECT (SELECT min(issuer) FROM mayfly.tasks WHERE state IN ('offered', 'active', 'suspended')) AS issuer
        UNION ALL SELECT (SELECT min(t.issuer) FROM mayfly.tasks t WHERE t.state IN ('offered', 'active', 'suspended') AND t.issuer > o.issuer)
        FROM others o WHERE o.issuer IS NOT NULL)
      SELECT t.id FROM others o CROSS JOIN LATERAL (
        SELECT id FROM mayfly.tasks WHERE issuer = o.issuer AND state IN ('offered', 'active', 'suspended') AND parent_id IS NULL LIMIT $2) t
      WHERE o.issuer <> ALL($1) LIMIT $2`,
    values: [issuers, limit],
  });
  return rows.map(({ id }) => id);
}

/** Where the sweep stands. */
export interface DriftSeen {
  /** Living grants that were not decided under the active revision yet. */
  readonly undecided: number;
  /** Since the first revision was applied that one of them was not decided under; 0 when there is none. */
  readonly oldestSeconds: number;
  /** What the last comparison of each target left as it is, where it left anything. */
  readonly left: readonly { readonly target: string; readonly held: number; readonly uninspected: number }[];
}

/** Costs as much as there is to decide. */
export async function readDrift(db: Queryable): Promise<DriftSeen> {
  const rows = await db.query<{ undecided: number; oldest: number }>({
    name: 'read_drift',
    text: `WITH behind AS (
        SELECT count(*)::int AS undecided, min(nullif(${DECIDED}, 0)) AS earliest FROM mayfly.grants g
        WHERE ${LIVES} AND ${DECIDED} < (SELECT revision FROM mayfly.catalog_active))
      SELECT undecided, coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - r.applied_at)) FROM mayfly.catalog_revisions r
        WHERE r.number > earliest ORDER BY r.number LIMIT 1), 0)::float8 AS oldest FROM behind`,
    values: [],
  });
  const left = await db.query<{ target: string; held: number; uninspected: number }>({
    name: 'read_left',
    text: `SELECT target, coalesce((result->>'held')::int, 0) AS held, coalesce((result->>'uninspected')::int, 0) AS uninspected
      FROM mayfly.reconciliations WHERE result->>'held' <> '0' OR result->>'uninspected' <> '0'`,
    values: [],
  });
  return { undecided: rows[0]?.undecided ?? 0, oldestSeconds: rows[0]?.oldest ?? 0, left };
}

function toLiving(row: LivingRow): Living {
  return {
    id: row.id,
    taskId: row.task_id,
    entitlement: row.entitlement,
    target: row.target,
    handle: row.handle,
    deadline: row.deadline,
    decisionId: row.decision_id,
    guarantee: row.guarantee,
    sink: row.sink,
  };
}
