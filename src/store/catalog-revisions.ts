import type { Queryable, Transaction } from './database.ts';
import { tryCatalogLock } from './locks.ts';

/** What happens to living grants that a revision does not permit: they end, or it is only told. */
export type Enforcement = 'revoke' | 'report';

export interface StoredRevision {
  readonly number: number;
  readonly digest: string;
  readonly enforce: Enforcement;
  readonly files: Readonly<Record<string, string>>;
  /** Of whoever vouches for it; null: nobody was asked to. */
  readonly signature: string | null;
}

export interface AppliedRevision {
  readonly number: number;
  readonly digest: string;
  readonly enforce: Enforcement;
  readonly appliedBy: string;
  readonly appliedAt: Date;
  /** Where its files come from, as whoever applied it said. */
  readonly commit: string | null;
  readonly signed: boolean;
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
    text: 'SELECT number, digest, files, enforce, signature FROM mayfly.catalog_revisions WHERE number = $1',
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
    commit_id: string | null;
    signed: boolean;
  }>({
    name: 'read_active_revision',
    text: `SELECT r.number, r.digest, r.enforce, r.applied_by, r.applied_at, r.commit_id, r.signature IS NOT NULL AS signed
      FROM mayfly.catalog_revisions r JOIN mayfly.catalog_active a ON a.revision = r.number`,
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
      commit: row.commit_id,
      signed: row.signed,
    }
  );
}

/** One file of a revision; undefined: it has none of that path. */
export async function findRevisionFile(db: Queryable, number: number, path: string): Promise<string | undefined> {
  const rows = await db.query<{ text: string | null }>({
    text: 'SELECT files->>$2 AS text FROM mayfly.catalog_revisions WHERE number = $1',
    values: [number, path],
  });
  return rows[0]?.text ?? undefined;
}

/** Where a revision comes from, and by whose word. */
export interface Provenance {
  readonly appliedBy: string;
  readonly commit: string | null;
  readonly signature: string | null;
}

/** Makes the files the active revision. The catalog's exclusive lock must be held. */
export async function insertActiveRevision(
  tx: Transaction,
  digest: string,
  files: Readonly<Record<string, string>>,
  { appliedBy, commit, signature }: Provenance,
  enforce: Enforcement,
): Promise<AppliedRevision> {
  const rows = await tx.query<{ number: string; applied_at: Date }>({
    text: `INSERT INTO mayfly.catalog_revisions (digest, files, applied_by, applied_at, enforce, commit_id, signature)
      VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number, applied_at`,
    values: [digest, JSON.stringify(files), appliedBy, tx.now, enforce, commit, signature],
  });
  const row = rows[0];
  if (row === undefined) throw new Error('The revision was not stored.');
  await tx.query({
    text: `INSERT INTO mayfly.catalog_active (revision) VALUES ($1) ON CONFLICT (singleton) DO UPDATE SET revision = EXCLUDED.revision`,
    values: [row.number],
  });
  const signed = signature !== null;
  return { number: Number(row.number), digest, enforce, appliedBy, appliedAt: row.applied_at, commit, signed };
}
