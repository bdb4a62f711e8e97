import type { Guarantee, Grant } from '../domain/grant.ts';
import type { GrantId, SignalId, TaskId } from '../domain/ids.ts';
import type { Queryable, Transaction } from './database.ts';

/** A living grant, with what is needed to decide whether it stays. */
export type Living = Pick<Grant, 'id' | 'taskId' | 'entitlement' | 'target' | 'handle' | 'deadline' | 'decisionId'> & {
  readonly guarantee: Guarantee['revocation'];
  /** It is counted in `sensitiveSinks` itself. */
  readonly sink: boolean;
  /** Groups that have approved it. */
  readonly approved: readonly string[];
  /** The signal that has it decided again; null: none. */
  readonly signalled: SignalId | null;
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
  approved: string[] | null;
  signalled: SignalId | null;
};

const COLUMNS = `g.id, g.task_id, g.entitlement, g.target, g.handle, g.deadline, g.decision_id, g.guarantee->>'revocation' AS guarantee, g.sink, g.signalled,
  (SELECT a.groups FROM mayfly.approvals a WHERE a.grant_id = g.id AND a.state = 'collected') AS approved`;
/** As in the index `grants_to_decide`. */
const DECIDED = 'coalesce(g.retained_revision, g.decided_revision)';
const LIVES = `g.state IN ('minting', 'active')`;

/**
 * Takes living grants that were not decided under this revision, those of the earliest one first and of these the ones that would
 * live longest. What another replica has in hand is passed over.
 * @param except What was tried before in this pass: `triedOf`.
 * @param signalled Only those that a signal has decided again.
 */
export async function claimUndecided(
  tx: Transaction,
  revision: number,
  limit: number,
  except: readonly string[],
  signalled = false,
): Promise<Living[]> {
  const rows = await tx.query<LivingRow>({
    name: 'claim_undecided',
    text: `SELECT ${COLUMNS} FROM mayfly.grants g WHERE ${LIVES} AND ${DECIDED} < $1 AND concat_ws(' ', g.id, g.signalled) <> ALL($3) AND (g.signalled IS NOT NULL OR NOT $4)
      ORDER BY ${DECIDED}, g.deadline DESC LIMIT $2 FOR NO KEY UPDATE OF g SKIP LOCKED`,
    values: [revision, limit, except, signalled],
  });
  return rows.map(toLiving);
}

/** That a grant was tried: where another signal has it decided again, it was not. */
export function triedOf({ id, signalled }: Pick<Living, 'id' | 'signalled'>): string {
  return signalled === null ? id : `${id} ${signalled}`;
}

/** The same for one of them; whoever has it in hand is waited for. None: it is decided, or does not live. */
export async function claimUndecidedGrant(tx: Transaction, revision: number, id: GrantId): Promise<Living[]> {
  const rows = await tx.query<LivingRow>({
    name: 'claim_undecided_grant',
    text: `SELECT ${COLUMNS} FROM mayfly.grants g WHERE g.id = $1 AND ${LIVES} AND ${DECIDED} < $2 FOR NO KEY UPDATE OF g`,
    values: [id, revision],
  });
  return rows.map(toLiving);
}

/** Whose grants a signal moves. */
export type GrantsOf =
  | { readonly all: true }
  | { readonly targets: readonly string[] }
  | { readonly workload: string }
  | { readonly issuer: string; readonly subject: string };

/** A signal, and whose grants it moves. */
export interface Marking {
  readonly signal: SignalId;
  readonly of: GrantsOf;
}

/**
 * What lives of these is to be decided again, each because of the last signal that reaches it. Answers for each how many. No birth may
 * run beside it.
 */
export async function markSignalled(tx: Transaction, markings: readonly Marking[]): Promise<readonly number[]> {
  if (markings.length === 0) return [];
  const reaches = markings.map(({ signal, of }, place) => ({ place, signal, ...of }));
  const rows = await tx.query<{ place: number; marked: number }>({
    name: 'mark_signalled',
    // One statement for all of them, which takes each grant once and in the order of their ids, as all that end several take them.
    text: `WITH reach AS (
        SELECT * FROM jsonb_to_recordset($1) AS r (place int, signal uuid, "all" boolean, targets text[], workload text, issuer text, subject text)),
      hit AS (
        SELECT g.id, r.place FROM reach r JOIN mayfly.grants g ON g.workload = r.workload WHERE ${LIVES}
        UNION ALL SELECT g.id, r.place FROM reach r CROSS JOIN LATERAL unnest(r.targets) AS n (name) JOIN mayfly.grants g ON g.target = n.name WHERE ${LIVES}
        UNION ALL SELECT g.id, r.place FROM reach r
          JOIN mayfly.tasks t ON t.issuer = r.issuer AND t.subject = r.subject AND t.state IN ('offered', 'active', 'suspended')
          JOIN mayfly.grants g ON g.task_id = t.id WHERE ${LIVES}
        UNION ALL SELECT g.id, r.place FROM reach r CROSS JOIN mayfly.grants g WHERE r."all" AND ${LIVES}),
      last AS (SELECT id, max(place) AS place FROM hit GROUP BY id),
      held AS (SELECT g.id FROM mayfly.grants g WHERE ${LIVES} AND g.id IN (SELECT id FROM last) ORDER BY g.id FOR NO KEY UPDATE),
      marked AS (
        UPDATE mayfly.grants g SET retained_revision = 0, signalled = r.signal FROM held h JOIN last l ON l.id = h.id JOIN reach r ON r.place = l.place
        WHERE g.id = h.id RETURNING g.id)
      SELECT h.place, count(*)::int AS marked FROM hit h JOIN marked m ON m.id = h.id GROUP BY h.place`,
    values: [JSON.stringify(reaches)],
  });
  const marked = new Map(rows.map((row) => [row.place, row.marked]));
  return markings.map((_, place) => marked.get(place) ?? 0);
}

/** These stay, by this revision. */
export async function markRetained(tx: Transaction, ids: readonly GrantId[], revision: number): Promise<void> {
  await tx.query({
    name: 'mark_retained',
    text: 'UPDATE mayfly.grants SET retained_revision = $2, signalled = NULL WHERE id = ANY($1)',
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
    // From revision to revision by the index: as a range of unknown length the planner may well read all that lives.
    text: `WITH RECURSIVE active AS (SELECT revision FROM mayfly.catalog_active), behind AS (
        SELECT (SELECT min(${DECIDED}) FROM mayfly.grants g WHERE ${LIVES} AND ${DECIDED} < a.revision) AS decided FROM active a
        UNION ALL SELECT (SELECT min(${DECIDED}) FROM mayfly.grants g WHERE ${LIVES} AND ${DECIDED} > b.decided AND ${DECIDED} < a.revision)
        FROM behind b CROSS JOIN active a WHERE b.decided IS NOT NULL),
      counted AS (
        SELECT b.decided, (SELECT count(*) FROM mayfly.grants g WHERE ${LIVES} AND ${DECIDED} = b.decided) AS grants
        FROM behind b WHERE b.decided IS NOT NULL)
      SELECT coalesce(sum(grants), 0)::int AS undecided, coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - r.applied_at))
        FROM mayfly.catalog_revisions r WHERE r.number > (SELECT min(nullif(decided, 0)) FROM counted) ORDER BY r.number LIMIT 1), 0)::float8 AS oldest
      FROM counted`,
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
    approved: row.approved ?? [],
    signalled: row.signalled,
  };
}
