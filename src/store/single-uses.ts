import type { DecisionId } from '../domain/ids.ts';
import type { Transaction } from './database.ts';

/** @param bound Digest of all that the permit is for. */
export async function insertSingleUse(
  tx: Transaction,
  permit: DecisionId,
  bound: Buffer,
  validSeconds: number,
): Promise<void> {
  await tx.query({
    name: 'insert_single_use',
    text: 'INSERT INTO mayfly.single_uses (decision_id, bound, valid_until) VALUES ($1, $2, $3)',
    values: [permit, bound, new Date(tx.now.getTime() + validSeconds * 1000)],
  });
}

/** True for the first use alone, and for the very thing that was permitted. Of two at once the second waits for the first. */
export async function spendSingleUse(
  tx: Transaction,
  permit: DecisionId,
  bound: Buffer,
  by: DecisionId,
): Promise<boolean> {
  const rows = await tx.query({
    name: 'spend_single_use',
    text: `UPDATE mayfly.single_uses SET spent_by = $3
      WHERE decision_id = $1 AND bound = $2 AND spent_by IS NULL AND valid_until > $4 RETURNING 1`,
    values: [permit, bound, by, tx.now],
  });
  return rows.length === 1;
}
