import type { FourEyesOperation } from '../domain/four-eyes.ts';
import type { Transaction } from './database.ts';

/** Who asks: an operator, as its issuer knows it. */
export interface Person {
  /** `<source>:<subject>`, for the evidence. */
  readonly name: string;
  readonly issuer: string;
  readonly subject: string;
}

/** What one operator asked for, and waits for another one to ask for too. */
export interface AwaitsSecond {
  readonly operation: FourEyesOperation;
  /** SHA-256 of exactly what was asked. */
  readonly digest: Buffer;
  /** What it is about, for people. */
  readonly resource: string;
  readonly person: Person;
  readonly askedAt: Date;
  readonly expiresAt: Date;
}

type Row = {
  resource: string;
  asked_by: string;
  issuer: string;
  subject: string;
  asked_at: Date;
  expires_at: Date;
};
const COLUMNS = 'resource, asked_by, issuer, subject, asked_at, expires_at';

/**
 * Writes down that this was asked for, in the place of what nobody seconded in time.
 * @returns undefined when the very same waits already: then its row is held until the end of the transaction.
 */
export async function awaitSecond(
  tx: Transaction,
  id: string,
  { operation, digest, resource, person, askedAt, expiresAt }: AwaitsSecond,
): Promise<AwaitsSecond | undefined> {
  const rows = await tx.query<Row>({
    text: `INSERT INTO mayfly.second_person AS s (id, operation, digest, ${COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
      ON CONFLICT (operation, digest) WHERE seconded_at IS NULL DO UPDATE SET id = excluded.id, resource = excluded.resource,
        asked_by = excluded.asked_by, issuer = excluded.issuer, subject = excluded.subject, asked_at = excluded.asked_at, expires_at = excluded.expires_at
      WHERE s.expires_at <= excluded.asked_at RETURNING ${COLUMNS}`,
    values: [id, operation, digest, resource, person.name, person.issuer, person.subject, askedAt, expiresAt],
  });
  return rows.map((row) => toAwaits(operation, digest, row))[0];
}

/** The one that waits for this; held against others until the end of the transaction. */
export async function holdAwaiting(
  tx: Transaction,
  operation: FourEyesOperation,
  digest: Buffer,
): Promise<AwaitsSecond | undefined> {
  const rows = await tx.query<Row>({
    text: `SELECT ${COLUMNS} FROM mayfly.second_person WHERE operation = $1 AND digest = $2 AND seconded_at IS NULL FOR UPDATE`,
    values: [operation, digest],
  });
  return rows.map((row) => toAwaits(operation, digest, row))[0];
}

export async function markSeconded(
  tx: Transaction,
  operation: FourEyesOperation,
  digest: Buffer,
  by: string,
): Promise<void> {
  await tx.query({
    text: `UPDATE mayfly.second_person SET seconded_by = $3, seconded_at = $4 WHERE operation = $1 AND digest = $2 AND seconded_at IS NULL`,
    values: [operation, digest, by, tx.now],
  });
}

function toAwaits(operation: FourEyesOperation, digest: Buffer, row: Row): AwaitsSecond {
  return {
    ...{ operation, digest, resource: row.resource },
    person: { name: row.asked_by, issuer: row.issuer, subject: row.subject },
    ...{ askedAt: row.asked_at, expiresAt: row.expires_at },
  };
}
