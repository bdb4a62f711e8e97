import type { Queryable, Transaction } from './database.ts';

/** What the store knows of itself. */
export interface StoreTimeline {
  /** The last known timeline, and the one that its server is on now; 0 where it has none that it would tell. */
  readonly known: number;
  readonly current: number;
  /** Those of the targets asked about on which nothing may be issued: not reconciled since the store failed over. */
  readonly unreconciled: ReadonlySet<string>;
}

export async function readStoreTimeline(db: Queryable, targets: readonly string[]): Promise<StoreTimeline> {
  const rows = await db.query<{ known: number; current: number; unreconciled: string[] }>({
    name: 'read_store_timeline',
    text: `SELECT timeline AS known, mayfly.current_timeline() AS current,
        ARRAY(SELECT n FROM unnest($1::text[]) n WHERE NOT mayfly.is_reconciled(n)) AS unreconciled FROM mayfly.timeline`,
    values: [targets],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('The store did not say on which timeline it is.');
  return { known: row.known, current: row.current, unreconciled: new Set(row.unreconciled) };
}

export interface TimelineChange {
  readonly before: number;
  readonly after: number;
}

/** All targets are due to be reconciled, also those that once were on a timeline of the same number. Every run in hand is lost. */
const DUE = `due AS (
        UPDATE mayfly.reconciliations SET next_at = least(next_at, $1), claimed_by = NULL, claimed_until = NULL, reconciled_timeline = NULL
        WHERE EXISTS (SELECT FROM changed)),
      noticed AS (UPDATE mayfly.tenures SET noticed = true WHERE EXISTS (SELECT FROM changed))`;

/** Takes the timeline of now for the known one. Undefined when nothing changed, or another replica noticed it first. */
export async function noteTimeline(tx: Transaction): Promise<TimelineChange | undefined> {
  const rows = await tx.query<{ before: number; after: number }>({
    text: `WITH known AS (SELECT timeline FROM mayfly.timeline FOR UPDATE),
      changed AS (
        UPDATE mayfly.timeline t SET timeline = mayfly.current_timeline(), changed_at = $1 FROM known k
        WHERE k.timeline <> mayfly.current_timeline() RETURNING k.timeline AS before, t.timeline AS after),
      ${DUE}
      SELECT before, after FROM changed`,
    values: [tx.now],
  });
  return rows[0];
}

/**
 * Takes the store for one that was set back on its timeline: under the tenure that beat was written, and it does not know of it. A
 * tenure that it does not know at all it learns again, from now on. Undefined when that was noticed already, or the timeline tells it.
 */
export async function noteSetBack(
  tx: Transaction,
  tenure: string,
  target: string,
  beat: number,
): Promise<TimelineChange | undefined> {
  // First, so that the next statement sees what another replica noticed.
  await tx.query({ text: 'SELECT FROM mayfly.timeline FOR UPDATE', values: [] });
  await tx.query({
    text: 'INSERT INTO mayfly.tenures (tenure, target, beat, beat_at) VALUES ($1, $2, 0, $3) ON CONFLICT DO NOTHING',
    values: [tenure, target, tx.now],
  });
  const rows = await tx.query<{ before: number; after: number }>({
    text: `WITH changed AS (
        UPDATE mayfly.timeline SET changed_at = $1 WHERE timeline = mayfly.current_timeline()
          AND EXISTS (SELECT FROM mayfly.tenures WHERE tenure = $2 AND beat < $3 AND NOT noticed) RETURNING timeline AS before, timeline AS after),
      ${DUE}
      SELECT before, after FROM changed`,
    values: [tx.now, tenure, beat],
  });
  return rows[0];
}

/** Whether something may be issued on a target, or renewed. */
export async function isReconciled(db: Queryable, target: string): Promise<boolean> {
  const rows = await db.query<{ is: boolean }>({
    name: 'is_reconciled',
    text: 'SELECT mayfly.is_reconciled($1) AS is',
    values: [target],
  });
  return rows[0]?.is === true;
}
