import type { Ledger } from '../contract/postgres-fixture.ts';

/** One catalog or table of ours, as it stands. */
export interface Size {
  readonly name: string;
  readonly rows: number;
  readonly dead: number;
  readonly heapBytes: number;
  readonly indexBytes: number;
}

export interface Sizes {
  readonly tables: readonly Size[];
  /** Roles with our prefix. */
  readonly roles: number;
  /** Rows of the registry, of which those with no role are tombstones. */
  readonly registered: number;
}

/** The shared catalogs that roles leave traces in, and every table of ours. */
const catalogs = ['pg_authid', 'pg_auth_members', 'pg_shdepend', 'pg_shdescription', 'pg_db_role_setting'];

/** What remains after it is what nobody will clean up. Twice: a page of an index is free only in the next transaction after it was emptied. */
export async function vacuum(ledger: Ledger): Promise<void> {
  for (let count = 0; count < 2; count++) {
    for (const name of await tables(ledger)) await ledger.admin(`VACUUM ${name}`);
    await ledger.admin('SELECT pg_current_xact_id()');
  }
}

export async function measureSizes(ledger: Ledger): Promise<Sizes> {
  const sizes: Size[] = [];
  // The statistics of a backend that is still there are sent now and then.
  await ledger.admin('SELECT pg_stat_clear_snapshot()');
  for (const name of await tables(ledger)) {
    const [row] = await ledger.admin(
      `SELECT (SELECT count(*) FROM ${name})::int AS rows, pg_stat_get_dead_tuples($1::regclass)::int AS dead,
         pg_relation_size($1::regclass)::int AS heap, pg_indexes_size($1::regclass)::int AS indexes`,
      [name],
    );
    const number = (key: string): number => Number(row?.[key]);
    const [rows, dead, heapBytes, indexBytes] = [number('rows'), number('dead'), number('heap'), number('indexes')];
    sizes.push({ name, rows, dead, heapBytes, indexBytes });
  }
  const [counts] = await ledger.admin(
    `SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'mfy\\_%')::int AS roles,
            (SELECT count(*) FROM mayfly.handle)::int AS registered`,
  );
  return { tables: sizes, roles: Number(counts?.['roles']), registered: Number(counts?.['registered']) };
}

/**
 * VACUUM makes pages free to be used again and seldom gives them back: an index never, a heap only its empty tail, and that of a
 * shared catalog not while the connection that stands by reads it. So room is allowed for what lives and waits at one time; what
 * as many lives again add to it is bloat.
 */
const allowance = 64 * 1024;
const factor = 1.1;

/** What is not back to where it began, in words. Empty when all is. */
export function notBack(before: Sizes, half: Sizes, after: Sizes): readonly string[] {
  const faults: string[] = [];
  if (after.roles !== before.roles) faults.push(`${after.roles - before.roles} roles are left`);
  if (after.registered !== before.registered) {
    faults.push(`${after.registered - before.registered} rows of the registry are left`);
  }
  for (const now of after.tables) {
    const [then, midway] = [before, half].map(({ tables: all }) => all.find(({ name }) => name === now.name));
    if (then === undefined || midway === undefined) {
      faults.push(`${now.name} was not there`);
      continue;
    }
    if (now.rows !== then.rows) faults.push(`${now.name} has ${now.rows - then.rows} rows more`);
    const heap = midway.heapBytes * factor + allowance;
    if (now.heapBytes > heap)
      faults.push(`${now.name} has ${now.heapBytes} bytes, after half of the lives it had ${midway.heapBytes}`);
    const index = midway.indexBytes * factor + allowance;
    if (now.indexBytes > index)
      faults.push(
        `the indexes of ${now.name} have ${now.indexBytes} bytes, after half of the lives they had ${midway.indexBytes}`,
      );
  }
  return faults;
}

export function sayBounds(): string {
  return `rows as before; pages after VACUUM at most ${factor} × those after half of the lives + ${allowance / 1024} kB`;
}

async function tables(ledger: Ledger): Promise<readonly string[]> {
  const rows = await ledger.admin(
    `SELECT format('mayfly.%I', c.relname) AS name FROM pg_class c
     WHERE c.relnamespace = 'mayfly'::regnamespace AND c.relkind = 'r' ORDER BY c.relname`,
  );
  return [...catalogs.map((name) => `pg_catalog.${name}`), ...rows.map(({ name }) => String(name))];
}
