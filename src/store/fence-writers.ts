import type { Facts } from '../domain/grant.ts';
import type { GrantId } from '../domain/ids.ts';
import type { Claimed } from './claims.ts';
import type { Database, Queryable } from './database.ts';

/** Space of the advisory locks under which a writer is chosen, one lock a target. */
const WRITERS = 0x4d460005;
/** Says in `claimed_by` who may write. It lives as long as the claim does. */
const WRITES = ' (writes)';

type Items = readonly Pick<Claimed, 'id' | 'claimNumber'>[];

export interface WriterView {
  /** A later writer has a larger one, also once the store was set back: it is its clock in microseconds, or the sequence where that is ahead. */
  readonly number: bigint;
  /** Grants of the target that nobody is ending, as they are now that the writer is chosen. */
  readonly live: readonly Pick<Claimed, 'grantId' | 'handle' | 'facts' | 'deadline'>[];
}

/**
 * Makes the holder of these claims the one writer of a target's fence document, unless another holds a claim as its writer.
 * A writer that falls silent stops being it with its claim; `number` tells its late write from those that came after.
 */
export async function takeWriter(
  db: Database,
  target: string,
  worker: string,
  items: Items,
): Promise<WriterView | undefined> {
  return await db.transaction({}, async (tx) => {
    await tx.query({
      name: 'lock_writers',
      text: 'SELECT pg_advisory_xact_lock($1, hashtext($2))',
      values: [WRITERS, target],
    });
    const [taken] = await tx.query<{ number: string }>({
      name: 'take_writer',
      text: `WITH mine AS (
          UPDATE mayfly.revocations r SET claimed_by = $2 FROM jsonb_to_recordset($3) AS d(id uuid, claim bigint)
          WHERE r.id = d.id AND r.claim_number = d.claim AND r.state IN ('running', 'contained') AND NOT EXISTS (
            SELECT FROM mayfly.revocations o WHERE o.target = $1 AND o.state IN ('running', 'contained')
              AND o.claimed_until > clock_timestamp() AND o.claimed_by LIKE '%' || $4)
          RETURNING r.id)
        SELECT greatest(nextval('mayfly.claim_numbers'), floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AS number
        WHERE EXISTS (SELECT FROM mine)`,
      values: [target, `${worker}${WRITES}`, rows(items), WRITES],
    });
    if (taken === undefined) return undefined;
    return { number: BigInt(taken.number), live: await findLive(tx, target) };
  });
}

export async function findLive(db: Queryable, target: string): Promise<WriterView['live']> {
  const live = await db.query<{ id: GrantId; handle: string; facts: Facts | null; deadline: Date }>({
    name: 'find_live_of_target',
    text: `SELECT id, handle, facts, deadline FROM mayfly.grants WHERE target = $1 AND state IN ('minting', 'active') ORDER BY handle COLLATE "C"`,
    values: [target],
  });
  return live.map(({ id, ...ref }) => ({ grantId: id, ...ref }));
}

export async function leaveWriter(db: Queryable, worker: string, items: Items): Promise<void> {
  await db.query({
    name: 'leave_writer',
    text: `UPDATE mayfly.revocations r SET claimed_by = $1 FROM jsonb_to_recordset($2) AS d(id uuid, claim bigint)
      WHERE r.id = d.id AND r.claim_number = d.claim AND r.claimed_by = $3`,
    values: [worker, rows(items), `${worker}${WRITES}`],
  });
}

function rows(items: Items): string {
  return JSON.stringify(items.map(({ id, claimNumber }) => ({ id, claim: String(claimNumber) })));
}
