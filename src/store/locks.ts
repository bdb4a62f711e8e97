import { createHash } from 'node:crypto';
import type { TaskId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';

/**
 * The order of locks, the same everywhere (DESIGN §3): kill epoch → catalog revision → root of the task tree. Births
 * (open, delegate, claim, issue, renew, activate) take them shared and only then check; ends, kills and applies take theirs exclusive
 * in a statement before they enumerate. So an end and a birth never miss each other.
 *
 * Advisory transaction locks: a row locked FOR SHARE would be written at every ask.
 */
export interface Locks {
  readonly kill?: Mode;
  readonly catalog?: Mode;
  readonly root?: { readonly id: TaskId; readonly mode: Mode };
  /** The tree whose births come one after another: each changes what the next is decided on. */
  readonly births?: TaskId;
  /** A source of signals, which come one after another. */
  readonly signals?: string;
}
type Mode = 'shared' | 'exclusive';

const KILL = 0x4d460001;
const CATALOG = 0x4d460002;
const ROOT = 0x4d460003;
const BIRTHS = 0x4d460004;
const SIGNALS = 0x4d460006;
// 0x4d460005 are the limits of the catalog, one after another: taken last, within the store (mayfly.reached_limit).

/** What a birth holds. */
export function birthLocks(root?: TaskId): Locks {
  return {
    kill: 'shared',
    catalog: 'shared',
    ...(root === undefined ? {} : { root: { id: root, mode: 'shared' as const } }),
  };
}

/** What a birth holds that no other in its tree may run beside. */
export function loneBirthLocks(root: TaskId): Locks {
  return { ...birthLocks(root), births: root };
}

/** The same for the functions of the store that take them themselves: kill, catalog, root, key of the root, and the births of a tree. */
export function birthLockKeys(root: TaskId): number[] {
  return [KILL, CATALOG, ROOT, rootKey(root), BIRTHS];
}

/** Takes the catalog’s lock shared, unless it would have to be waited for: answers false while a revision is being applied. */
export async function tryCatalogLock(tx: Queryable): Promise<boolean> {
  const rows = await tx.query<{ held: boolean }>({
    name: 'try_catalog_lock',
    text: 'SELECT pg_try_advisory_xact_lock_shared($1, 0) AS held',
    values: [CATALOG],
  });
  return rows[0]?.held === true;
}

/** Two roots with one key wait for each other, which is harmless. */
function rootKey(root: string): number {
  return createHash('sha256').update(root).digest().readInt32BE(0);
}

/** SQL that takes the locks in their order; integers only, so that it can travel with BEGIN. */
export function acquireLocks(locks: Locks): string {
  const calls = [
    locks.kill && call(locks.kill, KILL, 0),
    locks.catalog && call(locks.catalog, CATALOG, 0),
    locks.root && call(locks.root.mode, ROOT, rootKey(locks.root.id)),
    locks.births && call('exclusive', BIRTHS, rootKey(locks.births)),
    locks.signals && call('exclusive', SIGNALS, rootKey(locks.signals)),
  ].filter((text) => text !== undefined);
  return calls.map((text) => `SELECT ${text};`).join(' ');
}

function call(mode: Mode, space: number, key: number): string {
  return `pg_advisory_xact_lock${mode === 'shared' ? '_shared' : ''}(${space}, ${key})`;
}
