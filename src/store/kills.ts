import type { KillId } from '../domain/ids.ts';
import type { KillScope } from '../domain/kill.ts';
import type { StandingSignal } from '../domain/signal.ts';
import { type Task, type Workload, workloadId } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { TASK_COLUMNS, type TaskRow, toTask } from './tasks.ts';

/** What a kill names. */
export interface Killed {
  readonly scope: KillScope;
  /** As it stands in `mayfly.kills`: empty for `all`. */
  readonly subject: string;
}

/** An operator's word that stops something until it is lifted. */
export interface Kill extends Killed {
  readonly id: KillId;
  /** Targets that an operator must have in scope to see it or lift it. Null: only one whose role holds everywhere. */
  readonly targets: readonly string[] | null;
  readonly reason: string;
  readonly by: string;
  readonly at: Date;
  readonly ended: {
    readonly tasks: number;
    readonly grants: number;
    /** Revocations of grants that had ended before, and were not contained. */
    readonly hastened: number;
  };
  readonly lifted: { readonly at: Date; readonly by: string; readonly reason: string | null } | null;
}

export type KillRow = {
  id: KillId;
  scope: KillScope;
  subject: string;
  targets: string[] | null;
  reason: string;
  raised_by: string;
  created_at: Date;
  tasks_ended: number;
  grants_ended: number;
  hastened: number;
  lifted_at: Date | null;
  lifted_by: string | null;
  lift_reason: string | null;
};
const RAISED = 'id, scope, subject, targets, reason, raised_by, created_at, tasks_ended, grants_ended, hastened';
export const KILL_COLUMNS = `${RAISED}, lifted_at, lifted_by, lift_reason`;

/** The kill that stands for this. */
export async function findStanding(db: Queryable, { scope, subject }: Killed): Promise<Kill | undefined> {
  const rows = await db.query<KillRow>({
    text: `SELECT ${KILL_COLUMNS} FROM mayfly.kills WHERE scope = $1 AND subject = $2 AND lifted_at IS NULL`,
    values: [scope, subject],
  });
  return rows.map(toKill)[0];
}

/** Held against others who would lift it. */
export async function holdKill(tx: Transaction, id: KillId): Promise<Kill | undefined> {
  const rows = await tx.query<KillRow>({
    text: `SELECT ${KILL_COLUMNS} FROM mayfly.kills WHERE id = $1 FOR NO KEY UPDATE`,
    values: [id],
  });
  return rows.map(toKill)[0];
}

/**
 * A page of the kills, the latest first.
 * @param within Only those that need no other targets than these; null: all.
 */
export async function listKills(
  db: Queryable,
  standing: boolean | undefined,
  within: readonly string[] | null,
  before: KillId | null,
  limit: number,
): Promise<Kill[]> {
  const rows = await db.query<KillRow>({
    text: `SELECT ${KILL_COLUMNS} FROM mayfly.kills WHERE ($1::boolean IS NULL OR (lifted_at IS NULL) = $1)
        AND ($2::text[] IS NULL OR (targets <@ $2 AND targets <> '{}')) AND ($3::uuid IS NULL OR id < $3) ORDER BY id DESC LIMIT $4`,
    values: [standing ?? null, within, before, limit],
  });
  return rows.map(toKill);
}

/** Whether something that is not contained yet bears that name, whatever the catalog says of it now. */
export async function hasLiving(db: Queryable, { scope, subject }: Killed): Promise<boolean> {
  const rows = await db.query<{ has: boolean }>({
    text: `SELECT EXISTS (SELECT FROM mayfly.tasks t WHERE t.state IN ('offered', 'active', 'suspended') AND mayfly.kill_names($1, $2, t))
        OR EXISTS (SELECT FROM mayfly.grants g WHERE g.state IN ('minting', 'active', 'revoking')
          AND CASE $1 WHEN 'target' THEN g.target = $2 WHEN 'entitlement' THEN g.entitlement = $2 ELSE false END) AS has`,
    values: [scope, subject],
  });
  return rows[0]?.has === true;
}

export async function insertKill(tx: Transaction, kill: Omit<Kill, 'at' | 'lifted'>): Promise<Kill> {
  const { ended } = kill;
  const rows = await tx.query<KillRow>({
    text: `INSERT INTO mayfly.kills (${RAISED}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING ${KILL_COLUMNS}`,
    values: [
      ...[kill.id, kill.scope, kill.subject, kill.targets, kill.reason, kill.by, tx.now],
      ...[ended.tasks, ended.grants, ended.hastened],
    ],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('The kill was not stored.');
  return toKill(row);
}

/** Lifts a kill. Undefined when it does not stand any more. */
export async function markLifted(
  tx: Transaction,
  id: KillId,
  by: string,
  reason: string | null,
): Promise<Kill | undefined> {
  const rows = await tx.query<KillRow>({
    text: `UPDATE mayfly.kills SET lifted_at = $2, lifted_by = $3, lift_reason = $4 WHERE id = $1 AND lifted_at IS NULL RETURNING ${KILL_COLUMNS}`,
    values: [id, tx.now, by, reason],
  });
  return rows.map(toKill)[0];
}

/** Ends the living tasks that a kill names, and all that hangs on them. The kill epoch's exclusive lock must be held. */
export async function endKilledTasks(tx: Transaction, { scope, subject }: Killed): Promise<Task[]> {
  const rows = await tx.query<TaskRow>({
    // In the order of their ids: a tree's own end, which holds no kill epoch, takes parents before their children.
    text: `WITH held AS (
        SELECT t.id, mayfly.kill_names($1, $2, t) AS named FROM mayfly.tasks t
        WHERE t.state IN ('offered', 'active', 'suspended') AND mayfly.kill_covers($1, $2, t) ORDER BY t.id FOR NO KEY UPDATE OF t)
      UPDATE mayfly.tasks t SET ended_at = $3, state = CASE t.state WHEN 'offered' THEN 'cancelled' ELSE 'revoked' END,
        ended_by = CASE WHEN h.named THEN 'operator' ELSE 'parent_ended' END
      FROM held h WHERE t.id = h.id RETURNING ${TASK_COLUMNS}`,
    values: [scope, subject, tx.now],
  });
  return rows.map(toTask);
}

/**
 * Has what had ended before, and is not contained, tried now where a kill covers it, and on paused targets too. Answers the target of
 * each.
 */
export async function hastenKilled(tx: Transaction, { scope, subject }: Killed): Promise<string[]> {
  const rows = await tx.query<{ target: string }>({
    // What is being claimed or recorded at this moment is in a worker's hands, who takes such rows in another order.
    text: `WITH held AS (
        SELECT r.id FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id JOIN mayfly.tasks t ON t.id = g.task_id
        WHERE r.state IN ('due', 'running') AND r.urgent_at IS DISTINCT FROM $3
          AND CASE $1 WHEN 'target' THEN g.target = $2 WHEN 'entitlement' THEN g.entitlement = $2 ELSE mayfly.kill_covers($1, $2, t) END
        FOR NO KEY UPDATE OF r SKIP LOCKED)
      UPDATE mayfly.revocations r SET urgent_at = $3,
        try_at = CASE WHEN r.state = 'due' AND r.due_at <= $3 THEN least(r.try_at, $3) ELSE r.try_at END
      FROM held h WHERE r.id = h.id RETURNING r.target`,
    values: [scope, subject, tx.now],
  });
  return rows.map((row) => row.target);
}

/**
 * What a task is opened on: the active revision, whether a kill stands that names its workload or its issuer, or all, and what signals
 * stand about its workload and whom it acts for.
 */
export async function readBeforeOpening(
  tx: Transaction,
  workload: Workload,
  issuer: string,
  subject: string,
): Promise<{
  readonly revision: number | null;
  readonly killed: boolean;
  readonly signals: readonly StandingSignal[];
}> {
  const rows = await tx.query<{ revision: string | null; killed: boolean; signals: StandingSignal[] | null }>({
    name: 'read_before_opening',
    text: `SELECT (SELECT revision FROM mayfly.catalog_active) AS revision, mayfly.is_killed($1, $2, NULL, NULL, NULL) AS killed,
        mayfly.signals_about($1, $2 || ' ' || $3) AS signals`,
    values: [workloadId(workload), issuer, subject],
  });
  const [row] = rows;
  return {
    signals: row?.signals ?? [],
    revision: row?.revision === null || row === undefined ? null : Number(row.revision),
    killed: row?.killed !== false,
  };
}

export function toKill(row: KillRow): Kill {
  return {
    id: row.id,
    scope: row.scope,
    subject: row.subject,
    targets: row.targets,
    reason: row.reason,
    by: row.raised_by,
    at: row.created_at,
    ended: { tasks: row.tasks_ended, grants: row.grants_ended, hastened: row.hastened },
    lifted: row.lifted_at === null ? null : { at: row.lifted_at, by: row.lifted_by ?? '', reason: row.lift_reason },
  };
}

/** Whether a kill stands that stops this workload, `<source>:<subject>`, whatever its tasks. */
export async function isWorkloadKilled(db: Queryable, agent: string): Promise<boolean> {
  const [row] = await db.query<{ killed: boolean }>({
    name: 'is_workload_killed',
    text: 'SELECT mayfly.is_killed($1, NULL, NULL, NULL, NULL) AS killed',
    values: [agent],
  });
  return row?.killed !== false;
}
