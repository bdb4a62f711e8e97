import type { Queryable, Transaction } from './database.ts';

export interface StoredRevision {
  readonly number: number;
  readonly digest: string;
  readonly files: Readonly<Record<string, string>>;
}

export interface AppliedRevision {
  readonly number: number;
  readonly digest: string;
  readonly appliedBy: string;
  readonly appliedAt: Date;
}

export async function findActiveRevisionNumber(db: Queryable): Promise<number | null> {
  const rows = await db.query<{ revision: string }>({
    name: 'find_active_revision',
    text: 'SELECT revision FROM mayfly.catalog_active',
    values: [],
  });
  return rows[0] === undefined ? null : Number(rows[0].revision);
}

export async function findRevision(db: Queryable, number: number): Promise<StoredRevision | undefined> {
  const rows = await db.query<{ number: string; digest: string; files: Record<string, string> }>({
    text: 'SELECT number, digest, files FROM mayfly.catalog_revisions WHERE number = $1',
    values: [number],
  });
  return rows[0] && { number: Number(rows[0].number), digest: rows[0].digest, files: rows[0].files };
}

/** Makes the files the active revision. The catalog's exclusive lock must be held. */
export async function insertActiveRevision(
  tx: Transaction,
  digest: string,
  files: Readonly<Record<string, string>>,
  appliedBy: string,
): Promise<AppliedRevision> {
  const rows = await tx.query<{ number: string; applied_at: Date }>({
    text: `INSERT INTO mayfly.catalog_revisions (digest, files, applied_by, applied_at) VALUES ($1, $2, $3, $4) RETURNING number, applied_at`,
    values: [digest, JSON.stringify(files), appliedBy, tx.now],
  });
  const row = rows[0];
  if (row === undefined) throw new Error('The revision was not stored.');
  await tx.query({
    text: `INSERT INTO mayfly.catalog_active (revision) VALUES ($1) ON CONFLICT (singleton) DO UPDATE SET revision = EXCLUDED.revision`,
    values: [row.number],
  });
  return { number: Number(row.number), digest, appliedBy, appliedAt: row.applied_at };
}
