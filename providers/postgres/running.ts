import { performance } from 'node:perf_hooks';
import { pause } from './abort.ts';
import type { Connection } from './connection.ts';
import type { ConnectionPool } from './pool.ts';
import type { Target } from './target.ts';

/** Milliseconds after which a transaction that was told to end and goes on is reported. */
const longest = 4000;
const interval = 15;

/**
 * Ends transactions of other grants that may be inside code of these roles (definer-code.sql): rights are not asked
 * again in the middle of a call. Only where a role owned or could create something, and never a stranger's.
 * @returns False when some go on.
 * @throws ProviderError
 */
export async function evict(
  target: Target,
  oids: readonly number[],
  signal: AbortSignal,
  pool: ConnectionPool = target.revoking,
): Promise<boolean> {
  for (const began = performance.now(); ; ) {
    const [row] = await pool.useTwice(signal, ({ connection }) =>
      connection.query<{ told: number }>(
        'ending work inside code of the role',
        'SELECT mayfly.evict($1, $2::oid[]) AS told',
        [target.context.installation, oids],
        signal,
      ),
    );
    if (row?.told === 0) {
      return true;
    }
    if (performance.now() - began > longest) {
      return false;
    }
    await pause(interval, signal);
  }
}

/** What goes on that began before the end of a role that owned or could create something. */
export interface Inside {
  readonly code: boolean;
  /** `evict` has not been there yet. */
  readonly unasked: boolean;
  /** Transactions of other grants. */
  readonly ours: number;
  /** Transactions that are not ours and hold a lock on a relation of the role. */
  readonly strangers: number;
  /** The others that are not ours: nothing says that they are inside, nor that they are not. */
  readonly others: number;
}

/** Per handle; none for those that the registry does not know. @throws ProviderError */
export async function inside(
  connection: Connection,
  handles: readonly string[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Inside>> {
  const rows = await connection.query<Record<string, unknown> & { handle: string; code: boolean; unasked: boolean }>(
    'verifying',
    'SELECT * FROM mayfly.inside($1::text[])',
    [handles],
    signal,
  );
  return new Map(
    rows.map(({ handle, code, unasked, ours, strangers, others }) => [
      handle,
      { code, unasked, ours: Number(ours), strangers: Number(strangers), others: Number(others) },
    ]),
  );
}
