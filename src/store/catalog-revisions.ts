import type { Queryable, Transaction } from './database.ts';
import { tryCatalogLock } from './locks.ts';

/** What happens to living grants that a revision does not permit: they end, or it is only told. */
export type Enforcement = 'revoke' | 'report';

export interface StoredRevision {
  readonly number: number;
  readonly digest: string;
  readonly enforce: Enforcement;
  readonly files: Readonly<Record<string, string>>;
}

export interface AppliedRevision {
  readonly number: number;
  readonly digest: string;
  readonly enforce: Enforcement;
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

/**
 * How this revision is enforced, if it is active and stays so until the end of the transaction. Waits for nobody, so that it may be
 * asked after other locks.
 */
export async function enforcementOf(tx: Transaction, number: number): Promise<Enforcement | undefined> {
  if (!(await tryCatalogLock(tx))) return undefined;
  const active = await readActiveRevision(tx);
  return active?.number === number ? active.enforce : undefined;
}

export async function findRevision(db: Queryable, number: number): Promise<StoredRevision | undefined> {
  const rows = await db.query<Omit<StoredRevision, 'number'> & { number: string }>({
    text: 'SELECT number, digest, files, enforce FROM mayfly.catalog_revisions WHERE number = $1',
    values: [number],
  });
  return rows[0] && { ...rows[0], number: Number(rows[0].number) };
}

/** The active revision, without its files. */
export async function readActiveRevision(db: Queryable): Promise<AppliedRevision | undefined> {
  const rows = await db.query<{
    number: string;
    digest: string;
    enforce: Enforcement;
    applied_by: string;
    applied_at: Date;
  }>({
    name: 'read_active_revision',
    text: `SELECT r.number, r.digest, r.enforce, r.applied_by, r.applied_at FROM mayfly.catalog_revisions r JOIN mayfly.catalog_active a ON a.revision = r.number`,
    values: [],
  });
  const row = rows[0];
  return (
    row && {
      number: Number(row.number),
      digest: row.digest,
      enforce: row.enforce,
      appliedBy: row.applied_by,
      appliedAt: row.applied_at,
    }
  );
}

/** Makes the files the active revision. The catalog's exclusive lock must be held. */
export async function insertActiveRevision(
  tx: Transaction,
  digest: string,
  files: Readonly<Record<string, string>>,
  appliedBy: string,
  enforce: Enforcement,
): Promise<AppliedRevision> {
  const rows = await tx.query<{ number: string; applied_at: Date }>({
    text: `INSERT INTO mayfly.catalog_revisions (digest, files, applied_by, applied_at, enforce) VALUES ($1, $2, $3, $4, $5) RETURNING number, applied_at`,
    values: [digest, JSON.stringify(files), appliedBy, tx.now, enforce],
  });
  const row = rows[0];
  if (row === undefined) throw new Error('The revision was not stored.');
  await tx.query({
    text: `INSERT INTO mayfly.catalog_active (revision) VALUES ($1) ON CONFLICT (singleton) DO UPDATE SET revision = EXCLUDED.revision`,
    values: [row.number],
  });
  return { number: Number(row.number), digest, enforce, appliedBy, appliedAt: row.applied_at };
}
