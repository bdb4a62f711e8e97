import type { ProviderError } from '../../src/provider.ts';
import { classifyState } from './errors.ts';
import { relieved } from './relief.ts';
import type { Target } from './target.ts';

/** Refs per statement, as in fence.ts. */
const batchSize = 100;
/** Milliseconds to wait for a lock: a mint on the template may hold one. */
const lockWait = 200;
const tries = 5;

interface Row {
  readonly role_oid: number;
  readonly outcome: string;
  readonly removed: number;
}

/**
 * Removes memberships: per OID how many, or why not. Apart from the login, since a mint on the template may hold a lock.
 * @throws ProviderError
 */
export async function unlink(
  target: Target,
  oids: readonly number[],
  signal: AbortSignal,
): Promise<ReadonlyMap<number, number | ProviderError>> {
  const results = new Map<number, number | ProviderError>();
  let left = [...oids];
  for (let tried = 1; left.length > 0 && tried <= tries; tried += 1) {
    const locked: number[] = [];
    for (let from = 0; from < left.length; from += batchSize) {
      const batch = left.slice(from, from + batchSize);
      for (const { role_oid: oid, outcome, removed } of await unlinkBatch(target, batch, signal)) {
        const state = outcome === 'locked' ? '55P03' : /^failed:(.*)$/.exec(outcome)?.[1];
        results.set(oid, state === undefined ? removed : classifyState(state, 'removing memberships'));
        if (outcome === 'locked') {
          locked.push(oid);
        }
      }
    }
    left = locked;
  }
  return results;
}

function unlinkBatch(target: Target, oids: readonly number[], signal: AbortSignal): Promise<readonly Row[]> {
  return relieved(target, oids, signal, async () => {
    const rows = await target.revoking.useTwice(signal, ({ connection }) =>
      connection.query<Row & Record<string, unknown>>(
        'removing memberships',
        'SELECT role_oid, outcome, removed FROM mayfly.unlink($1, $2::oid[], $3)',
        [target.context.installation, oids, lockWait],
        signal,
      ),
    );
    // The lock table is full: said of one role, and true of all.
    if (rows.some(({ outcome }) => outcome === 'failed:53200')) {
      throw classifyState('53200', 'removing memberships');
    }
    return rows;
  });
}
