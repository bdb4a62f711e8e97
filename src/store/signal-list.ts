import type { SignalId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';
import type { NewSignal } from './signals.ts';

/** A signal that is kept, and whether it counts now. */
export type KeptSignal = Omit<NewSignal, 'bodyDigest'> & { readonly standing: boolean };

type Row = {
  id: SignalId;
  source: string;
  key: string;
  kind: NewSignal['kind'];
  subject: string;
  name: string;
  value: string;
  reason: string | null;
  occurred_at: Date;
  expires_at: Date | null;
  received_at: Date;
  outcome: NewSignal['outcome'];
  standing: boolean;
};

/**
 * A page of those that stand, and of all of the last days; the latest first.
 * @param within Only about these subjects; null: all.
 */
export async function listSignals(
  db: Queryable,
  standing: boolean | undefined,
  within: readonly string[] | null,
  before: SignalId | null,
  limit: number,
): Promise<KeptSignal[]> {
  const rows = await db.query<Row>({
    text: `SELECT * FROM (
        SELECT g.id, g.source, g.key, g.kind, g.subject, g.name, g.value, g.reason, g.occurred_at, g.expires_at, g.received_at, g.outcome,
          s.signal_id IS NOT NULL AND NOT s.lapsed AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp()) AS standing
        FROM mayfly.signals g LEFT JOIN mayfly.signals_standing s ON s.signal_id = g.id) g
      WHERE ($1::boolean IS NULL OR standing = $1) AND ($2::text[] IS NULL OR subject = ANY($2)) AND ($3::uuid IS NULL OR id < $3)
      ORDER BY id DESC LIMIT $4`,
    values: [standing ?? null, within, before, limit],
  });
  return rows.map((row) => ({
    ...{ id: row.id, source: row.source, key: row.key, kind: row.kind, subject: row.subject, name: row.name },
    ...{ value: row.value, reason: row.reason, occurredAt: row.occurred_at, expiresAt: row.expires_at },
    ...{ receivedAt: row.received_at, outcome: row.outcome, standing: row.standing },
  }));
}

/** Milliseconds since 1970 up to which each source was heard, and the store's clock. */
export async function readHeard(
  db: Queryable,
): Promise<{ readonly heard: Readonly<Record<string, number>>; readonly now: Date }> {
  const [row] = await db.query<{ heard: Record<string, number>; now: Date }>({
    name: 'read_heard',
    text: 'SELECT mayfly.signals_heard() AS heard, clock_timestamp() AS now',
    values: [],
  });
  if (row === undefined) throw new Error('The store did not say whom it heard.');
  return row;
}
