import type { KillId } from '../domain/ids.ts';
import type { Queryable, Transaction } from './database.ts';
import { KILL_COLUMNS, type Kill, type KillRow, toKill } from './kills.ts';

/** What stands, as one replica sees it. */
export interface KillsSeen {
  readonly standing: readonly Kill[];
  /** Of those asked about: the ones that the store knows nothing of. No kill is ever deleted: it forgot them. */
  readonly forgotten: readonly KillId[];
  readonly confirmed: boolean;
  /** When the store last noticed that it may have forgotten something, in its own words. */
  readonly since: string;
}

const SINCE = `t.timeline || ' ' || coalesce(t.changed_at::text, '')`;

export async function readKills(db: Queryable, known: readonly KillId[]): Promise<KillsSeen> {
  // In one statement: between two the store could forget.
  const rows = await db.query<
    { since: string; confirmed: boolean; forgotten: KillId[] } & (KillRow | { readonly id: null })
  >({
    name: 'read_kept_kills',
    text: `SELECT ${SINCE} AS since, t.kills_confirmed AS confirmed, k.*,
        ARRAY(SELECT n FROM unnest($1::uuid[]) n WHERE NOT EXISTS (SELECT FROM mayfly.kills o WHERE o.id = n)) AS forgotten
      FROM mayfly.timeline t LEFT JOIN (SELECT ${KILL_COLUMNS} FROM mayfly.kills WHERE lifted_at IS NULL) k ON true`,
    values: [known],
  });
  const [about] = rows;
  if (about === undefined) throw new Error('The store did not say on which timeline it is.');
  const { since, confirmed, forgotten } = about;
  return { since, confirmed, forgotten, standing: rows.flatMap((row) => (row.id === null ? [] : [toKill(row)])) };
}

/**
 * What stands is all that shall stand. False when that was said already, or it forgot something once more.
 * @param since What {@link KillsSeen} said when that was found; null: whatever it forgot.
 */
export async function markKillsConfirmed(tx: Transaction, since: string | null): Promise<boolean> {
  const rows = await tx.query({
    text: `UPDATE mayfly.timeline t SET kills_confirmed = true WHERE NOT kills_confirmed AND ($1::text IS NULL OR ${SINCE} = $1) RETURNING true`,
    values: [since],
  });
  return rows.length > 0;
}
