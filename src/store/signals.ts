import type { SignalId } from '../domain/ids.ts';
import type { SignalKind, StandingSignal } from '../domain/signal.ts';
import type { Queryable, Transaction } from './database.ts';

/** What a signal is about: one value of each source stands there. */
export interface SignalPlace {
  readonly kind: SignalKind;
  readonly subject: string;
  /** Of incidents and freezes, where several may stand on one subject; else empty. */
  readonly name: string;
}

export interface NewSignal extends SignalPlace {
  readonly id: SignalId;
  readonly source: string;
  /** The source's own id. */
  readonly key: string;
  readonly bodyDigest: Buffer;
  readonly value: string;
  readonly reason: string | null;
  readonly occurredAt: Date;
  readonly expiresAt: Date | null;
  readonly receivedAt: Date;
  readonly outcome: SignalOutcome;
}

/** `superseded`: a newer one of the same source stood already. */
export type SignalOutcome = 'taken' | 'superseded';

/** What stands at a place, whether it has expired or not. */
export interface Standing extends SignalPlace {
  readonly value: string;
  readonly occurredAt: Date;
  readonly expiresAt: Date | null;
  readonly lapsed: boolean;
  readonly signalId: SignalId;
}

export type EarlierSignal = Pick<NewSignal, 'id' | 'key' | 'bodyDigest' | 'outcome' | 'receivedAt'>;

/** Those of these ids that the source has sent before. */
export async function findEarlier(tx: Transaction, source: string, keys: readonly string[]): Promise<EarlierSignal[]> {
  const rows = await tx.query<{
    id: SignalId;
    key: string;
    body_digest: Buffer;
    outcome: SignalOutcome;
    received_at: Date;
  }>({
    name: 'find_earlier_signals',
    text: 'SELECT id, key, body_digest, outcome, received_at FROM mayfly.signals WHERE source = $1 AND key = ANY($2)',
    values: [source, keys],
  });
  return rows.map((row) => ({
    ...{ id: row.id, key: row.key, bodyDigest: row.body_digest, outcome: row.outcome, receivedAt: row.received_at },
  }));
}

type StandingRow = {
  kind: SignalKind;
  subject: string;
  name: string;
  value: string;
  occurred_at: Date;
  expires_at: Date | null;
  lapsed: boolean;
  signal_id: SignalId;
};
const STANDING = 's.kind, s.subject, s.name, s.value, s.occurred_at, s.expires_at, s.lapsed, s.signal_id';

/** What the source said last of these places. Nobody changes it until the transaction is over. */
export async function holdStanding(
  tx: Transaction,
  source: string,
  places: readonly SignalPlace[],
): Promise<Standing[]> {
  const rows = await tx.query<StandingRow>({
    name: 'hold_standing_signals',
    text: `SELECT ${STANDING} FROM mayfly.signals_standing s
      JOIN (SELECT DISTINCT * FROM jsonb_to_recordset($2) AS p (kind text, subject text, name text)) p USING (kind, subject, name)
      WHERE s.source = $1 ORDER BY s.kind, s.subject, s.name FOR UPDATE OF s`,
    values: [source, JSON.stringify(places)],
  });
  return rows.map(toStanding);
}

/** How many incidents and freezes of the source stand. */
export async function countOpen(tx: Transaction, source: string): Promise<number> {
  const [row] = await tx.query<{ open: number }>({
    name: 'count_open_signals',
    text: `SELECT count(*)::int AS open FROM mayfly.signals_standing WHERE source = $1 AND value IN ('open', 'on') AND NOT lapsed`,
    values: [source],
  });
  return row?.open ?? 0;
}

/** How many places the source speaks of, counted no further than that. */
export async function countPlaces(tx: Transaction, source: string, most: number): Promise<number> {
  const [row] = await tx.query<{ places: number }>({
    name: 'count_signal_places',
    text: 'SELECT count(*)::int AS places FROM (SELECT FROM mayfly.signals_standing WHERE source = $1 LIMIT $2) s',
    values: [source, most],
  });
  return row?.places ?? 0;
}

export async function insertSignals(tx: Transaction, signals: readonly NewSignal[]): Promise<void> {
  const rows = signals.map((one) => ({
    ...{ id: one.id, source: one.source, key: one.key, body_digest: `\\x${one.bodyDigest.toString('hex')}` },
    ...{ kind: one.kind, subject: one.subject, name: one.name, value: one.value, reason: one.reason },
    ...{ occurred_at: one.occurredAt, expires_at: one.expiresAt, received_at: one.receivedAt, outcome: one.outcome },
  }));
  await tx.query({
    name: 'insert_signals',
    text: 'INSERT INTO mayfly.signals SELECT * FROM jsonb_populate_recordset(NULL::mayfly.signals, $1)',
    values: [JSON.stringify(rows)],
  });
}

/** These stand from now on, each in place of what stood there. */
export async function putStanding(tx: Transaction, signals: readonly NewSignal[]): Promise<void> {
  const rows = signals.map((one) => ({
    ...{ source: one.source, kind: one.kind, subject: one.subject, name: one.name, value: one.value },
    ...{ occurred_at: one.occurredAt, expires_at: one.expiresAt, lapsed: false, signal_id: one.id },
  }));
  await tx.query({
    name: 'put_standing_signals',
    text: `INSERT INTO mayfly.signals_standing SELECT * FROM jsonb_populate_recordset(NULL::mayfly.signals_standing, $1)
      ON CONFLICT (source, kind, subject, name) DO UPDATE SET value = excluded.value, occurred_at = excluded.occurred_at,
        expires_at = excluded.expires_at, lapsed = false, signal_id = excluded.signal_id`,
    values: [JSON.stringify(rows)],
  });
}

/** The source is heard up to that time. */
export async function hear(tx: Transaction, source: string, at: Date): Promise<void> {
  await tx.query({
    name: 'hear_signal_source',
    text: `INSERT INTO mayfly.signal_sources AS s VALUES ($1, $2)
      ON CONFLICT (source) DO UPDATE SET heard_at = excluded.heard_at WHERE s.heard_at < excluded.heard_at`,
    values: [source, at],
  });
}

/** What is known of a workload that is no task. */
export async function readSignalsAbout(
  db: Queryable,
  workload: string | null,
): Promise<{ readonly standing: readonly StandingSignal[]; readonly heard: Readonly<Record<string, number>> }> {
  const [row] = await db.query<{ standing: StandingSignal[] | null; heard: Record<string, number> }>({
    name: 'read_signals_about',
    text: 'SELECT mayfly.signals_about($1, NULL) AS standing, mayfly.signals_heard() AS heard',
    values: [workload],
  });
  return { standing: row?.standing ?? [], heard: row?.heard ?? {} };
}

/** Whether something expired that nobody was told of. */
export async function hasLapsed(db: Queryable): Promise<boolean> {
  const [row] = await db.query<{ has: boolean }>({
    name: 'has_lapsed_signals',
    text: `SELECT EXISTS (SELECT FROM mayfly.signals_standing WHERE NOT lapsed AND expires_at <= (SELECT clock_timestamp())) AS has`,
    values: [],
  });
  return row?.has === true;
}

/** Takes note of what has expired, at most so many. What a source changes at this moment is passed over. */
export async function lapse(tx: Transaction, limit: number): Promise<(Standing & { readonly source: string })[]> {
  const rows = await tx.query<StandingRow & { source: string }>({
    name: 'lapse_signals',
    text: `WITH due AS (
        SELECT source, kind, subject, name FROM mayfly.signals_standing WHERE NOT lapsed AND expires_at <= $1
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
      UPDATE mayfly.signals_standing s SET lapsed = true FROM due d
      WHERE (s.source, s.kind, s.subject, s.name) = (d.source, d.kind, d.subject, d.name) RETURNING s.source, ${STANDING}`,
    values: [tx.now, limit],
  });
  return rows.map((row) => ({ ...toStanding(row), source: row.source }));
}

/** Longer than the oldest signal that any source may send. */
const KEPT_DAYS = 2;

/** Forgets what does not stand and can not come again, at most so many of each. Answers whether there is more. */
export async function forgetSignals(db: Queryable, limit: number): Promise<boolean> {
  const over = await db.query({
    name: 'forget_standing_signals',
    text: `DELETE FROM mayfly.signals_standing s USING (
        SELECT source, kind, subject, name FROM mayfly.signals_standing
        WHERE (value IN ('closed', 'off') OR lapsed) AND occurred_at < (SELECT clock_timestamp()) - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED) o
      WHERE (s.source, s.kind, s.subject, s.name) = (o.source, o.kind, o.subject, o.name) RETURNING 1`,
    values: [KEPT_DAYS, limit],
  });
  const old = await db.query({
    name: 'forget_signals',
    text: `DELETE FROM mayfly.signals WHERE id = ANY (ARRAY(
        SELECT id FROM mayfly.signals r WHERE received_at < (SELECT clock_timestamp()) - make_interval(days => $1)
          AND NOT EXISTS (SELECT FROM mayfly.signals_standing s WHERE s.signal_id = r.id)
        ORDER BY received_at LIMIT $2)) RETURNING 1`,
    values: [KEPT_DAYS, limit],
  });
  return over.length === limit || old.length === limit;
}

/** Of signals: by whom they came, and what they say. */
export async function findSignals(
  db: Queryable,
  ids: readonly SignalId[],
): Promise<Pick<NewSignal, 'id' | 'source' | 'key' | 'kind' | 'value'>[]> {
  return await db.query({
    text: 'SELECT id, source, key, kind, value FROM mayfly.signals WHERE id = ANY($1)',
    values: [ids],
  });
}

function toStanding(row: StandingRow): Standing {
  return {
    ...{ kind: row.kind, subject: row.subject, name: row.name, value: row.value, occurredAt: row.occurred_at },
    ...{ expiresAt: row.expires_at, lapsed: row.lapsed, signalId: row.signal_id },
  };
}
