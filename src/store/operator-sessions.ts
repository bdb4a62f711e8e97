import { createHash } from 'node:crypto';
import type { Queryable, Transaction } from './database.ts';

/** Of those that are over, so many are forgotten with each new one. */
const FORGOTTEN_AT_ONCE = 100;

export type OperatorSession = {
  /** Name of the catalog's source of operators. */
  readonly source: string;
  readonly issuer: string;
  readonly subject: string;
  /** Those that say which roles. */
  readonly claims: Readonly<Record<string, unknown>>;
  readonly expiresAt: Date;
};

export async function insertSession(
  tx: Transaction,
  secret: string,
  session: Omit<OperatorSession, 'expiresAt'>,
  seconds: number,
): Promise<Date> {
  const rows = await tx.query<{ expires_at: Date }>({
    text: `WITH forgotten AS (
        DELETE FROM mayfly.operator_sessions WHERE digest IN (
          SELECT digest FROM mayfly.operator_sessions WHERE expires_at <= $5 LIMIT $7))
      INSERT INTO mayfly.operator_sessions (digest, source, issuer, subject, claims, created_at, expires_at)
      VALUES ($1, $2, $8, $3, $4, $5, $5::timestamptz + make_interval(secs => $6)) RETURNING expires_at`,
    values: [
      digestOf(secret),
      session.source,
      session.subject,
      JSON.stringify(session.claims),
      tx.now,
      seconds,
      FORGOTTEN_AT_ONCE,
      session.issuer,
    ],
  });
  return rows[0]?.expires_at ?? tx.now;
}

/** One that is not over, by the store's clock. */
export async function findSession(db: Queryable, secret: string): Promise<OperatorSession | undefined> {
  const rows = await db.query<OperatorSession>({
    name: 'find_session',
    text: `SELECT source, issuer, subject, claims, expires_at AS "expiresAt" FROM mayfly.operator_sessions
      WHERE digest = $1 AND issuer IS NOT NULL AND expires_at > clock_timestamp()`,
    values: [digestOf(secret)],
  });
  return rows[0];
}

/** Whose it was; undefined when it was over. */
export async function deleteSession(
  tx: Transaction,
  secret: string,
): Promise<Pick<OperatorSession, 'source' | 'subject'> | undefined> {
  const rows = await tx.query<{ source: string; subject: string }>({
    text: 'DELETE FROM mayfly.operator_sessions WHERE digest = $1 AND expires_at > $2 RETURNING source, subject',
    values: [digestOf(secret), tx.now],
  });
  return rows[0];
}

function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
