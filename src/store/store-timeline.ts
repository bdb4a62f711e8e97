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

/**
 * Takes the timeline of now for the known one. Every run in hand began on another: it is lost, and all targets are due to be
 * reconciled, also those that once were on one of the same number. Undefined when nothing changed, or another replica noticed it first.
 */
export async function noteTimeline(tx: Transaction): Promise<{ before: number; after: number } | undefined> {
  const rows = await tx.query<{ before: number; after: number }>({
    text: `WITH known AS (SELECT timeline FROM mayfly.timeline FOR UPDATE),
      changed AS (
        UPDATE mayfly.timeline t SET timeline = mayfly.current_timeline(), changed_at = $1 FROM known k
        WHERE k.timeline <> mayfly.current_timeline() RETURNING k.timeline AS before, t.timeline AS after),
      due AS (
        UPDATE mayfly.reconciliations SET next_at = least(next_at, $1), claimed_by = NULL, claimed_until = NULL, reconciled_timeline = NULL
        WHERE EXISTS (SELECT FROM changed))
      SELECT before, after FROM changed`,
    values: [tx.now],
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
