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

export async function readKills(db: Queryable, known: readonly KillId[]): Promise<KillsSeen> {
  const [about] = await db.query<{ since: string; confirmed: boolean; forgotten: KillId[] }>({
    name: 'read_kept_kills',
    text: `SELECT t.timeline || ' ' || coalesce(t.changed_at::text, '') AS since, t.kills_confirmed AS confirmed,
        ARRAY(SELECT n FROM unnest($1::uuid[]) n WHERE NOT EXISTS (SELECT FROM mayfly.kills k WHERE k.id = n)) AS forgotten FROM mayfly.timeline t`,
    values: [known],
  });
  if (about === undefined) throw new Error('The store did not say on which timeline it is.');
  const rows = await db.query<KillRow>({
    name: 'read_standing_kills',
    text: `SELECT ${KILL_COLUMNS} FROM mayfly.kills WHERE lifted_at IS NULL`,
    values: [],
  });
  return { ...about, standing: rows.map(toKill) };
}

/** What stands is all that shall stand. False when that was said already. */
export async function markKillsConfirmed(tx: Transaction): Promise<boolean> {
  const rows = await tx.query({
    text: 'UPDATE mayfly.timeline SET kills_confirmed = true WHERE NOT kills_confirmed RETURNING true',
    values: [],
  });
  return rows.length > 0;
}
