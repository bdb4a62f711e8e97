import type { GrantId } from '../domain/ids.ts';
import type { Queryable, Transaction } from './database.ts';

/**
 * What tells this store from one that was filled with its dump: the cluster and the database in it. A physical copy has the same;
 * of the two, only one can go on with a tenure (DESIGN §3).
 */
export async function readStoreIdentity(db: Queryable): Promise<string> {
  const rows = await db.query<{ identity: string }>({
    text: `SELECT c.system_identifier || ':' || d.oid AS identity FROM pg_control_system() c, pg_database d
      WHERE d.datname = current_database()`,
    values: [],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('The store did not say which it is.');
  return row.identity;
}

export interface StoredTenure {
  /** The highest beat that may stand in the target. */
  readonly beat: number;
  /** Another store was seen to go on with it. */
  readonly lost: boolean;
}

export async function insertTenure(db: Queryable, tenure: string, target: string): Promise<void> {
  await db.query({
    text: 'INSERT INTO mayfly.tenures (tenure, target, beat, beat_at) VALUES ($1, $2, 1, clock_timestamp())',
    values: [tenure, target],
  });
}

export async function findTenure(db: Queryable, tenure: string): Promise<StoredTenure | undefined> {
  const rows = await db.query<{ beat: string; lost: boolean }>({
    name: 'find_tenure',
    text: 'SELECT beat, lost_at IS NOT NULL AS lost FROM mayfly.tenures WHERE tenure = $1',
    values: [tenure],
  });
  return rows[0] && { beat: Number(rows[0].beat), lost: rows[0].lost };
}

/**
 * Raises the beat above `known`, if the last is `seconds` old: of many replicas one does. Committed before the target hears of it.
 * @returns the new beat; undefined when it is not time yet, or the tenure is lost.
 */
export async function raiseBeat(
  db: Queryable,
  tenure: string,
  known: number,
  seconds: number,
): Promise<number | undefined> {
  const rows = await db.query<{ beat: string }>({
    name: 'raise_beat',
    text: `UPDATE mayfly.tenures SET beat = greatest(beat, $2) + 1, beat_at = clock_timestamp(), noticed = false
      WHERE tenure = $1 AND lost_at IS NULL AND (beat < $2 OR beat_at <= clock_timestamp() - make_interval(secs => $3)) RETURNING beat`,
    values: [tenure, known, seconds],
  });
  return rows[0] && Number(rows[0].beat);
}

/** @returns false when it was lost already, or this store knows nothing of it. */
export async function loseTenure(tx: Transaction, tenure: string): Promise<boolean> {
  const rows = await tx.query({
    text: 'UPDATE mayfly.tenures SET lost_at = $2 WHERE tenure = $1 AND lost_at IS NULL RETURNING tenure',
    values: [tenure, tx.now],
  });
  return rows.length > 0;
}

/**
 * Those of the grants that were intended under the tenure: after it began, and after every other one of the target was last seen there.
 * A target that moved away and back shows one that had begun before, too. A tenure that this store does not know proves nothing.
 */
export async function findGrantsUnder(
  db: Queryable,
  tenure: string | null,
  grantIds: readonly GrantId[],
): Promise<ReadonlySet<GrantId>> {
  const rows = await db.query<{ id: GrantId }>({
    name: 'find_grants_under',
    text: `SELECT g.id FROM mayfly.grants g JOIN mayfly.tenures t ON t.target = g.target
      WHERE t.tenure = $1 AND g.id = ANY($2) AND t.begun_at <= g.created_at AND NOT EXISTS (
        SELECT FROM mayfly.tenures n WHERE n.target = t.target AND n.tenure <> t.tenure AND n.beat > 1
          AND (n.beat_at > g.created_at OR (n.begun_at > t.begun_at AND n.begun_at <= g.created_at)))`,
    values: [tenure, grantIds],
  });
  return new Set(rows.map(({ id }) => id));
}
