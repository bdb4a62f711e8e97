import type { Queryable, Transaction } from './database.ts';

/** A target that an operator has paused. */
export interface Pause {
  readonly target: string;
  /** Not even what has reached its deadline is ended. */
  readonly deadlinesHeld: boolean;
  readonly reason: string;
  readonly by: string;
  readonly since: Date;
}

/** As it stands in `mayfly.target_controls`. */
export type PauseRow = {
  target: string;
  deadlines_held: boolean;
  reason: string;
  changed_by: string;
  changed_at: Date;
};
const COLUMNS = 'target, deadlines_held, reason, changed_by, changed_at';

/** The pause of a target, if it is paused. */
export async function findPause(db: Queryable, target: string): Promise<Pause | undefined> {
  const rows = await db.query<PauseRow>({
    name: 'find_pause',
    text: `SELECT ${COLUMNS} FROM mayfly.target_controls WHERE target = $1 AND paused`,
    values: [target],
  });
  return rows.map(toPause)[0];
}

/** The pauses of all targets that are paused. */
export async function listPauses(db: Queryable): Promise<Pause[]> {
  const rows = await db.query<PauseRow>({
    name: 'list_pauses',
    text: `SELECT ${COLUMNS} FROM mayfly.target_controls WHERE paused`,
    values: [],
  });
  return rows.map(toPause);
}

/** Pauses a target. Undefined when it is paused in this very way already: whoever came first stays named. */
export async function insertPause(
  tx: Transaction,
  pause: Pick<Pause, 'target' | 'deadlinesHeld' | 'reason' | 'by'>,
): Promise<Pause | undefined> {
  const rows = await tx.query<PauseRow>({
    text: `INSERT INTO mayfly.target_controls AS c (${COLUMNS}, paused) VALUES ($1, $2, $3, $4, $5, true)
      ON CONFLICT (target) DO UPDATE SET deadlines_held = $2, reason = $3, changed_by = $4, changed_at = $5, paused = true
      WHERE NOT c.paused OR c.deadlines_held <> $2 RETURNING ${COLUMNS}`,
    values: [pause.target, pause.deadlinesHeld, pause.reason, pause.by, tx.now],
  });
  return rows.map(toPause)[0];
}

/** Ends a target's pause. False when it was not paused. */
export async function endPause(tx: Transaction, target: string, by: string): Promise<boolean> {
  const rows = await tx.query({
    text: `UPDATE mayfly.target_controls SET paused = false, changed_by = $2, changed_at = $3 WHERE target = $1 AND paused RETURNING target`,
    values: [target, by, tx.now],
  });
  return rows.length > 0;
}

export function toPause(row: PauseRow): Pause {
  return {
    target: row.target,
    deadlinesHeld: row.deadlines_held,
    reason: row.reason,
    by: row.changed_by,
    since: row.changed_at,
  };
}
