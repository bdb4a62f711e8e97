import type { Grant } from '../domain/grant.ts';
import type { Transaction } from './database.ts';

/** Why nothing may begin or go on on a target: a kill, a pause, or that it was not reconciled, or the kills not
 * confirmed, since the store failed over. */
type Stop = 'killed' | 'paused' | 'failed_over';

/** What stops a renewal of the grant, besides what stops its task. */
export async function findStop(
  tx: Transaction,
  { entitlement, target }: Pick<Grant, 'entitlement' | 'target'>,
): Promise<Stop | null> {
  const rows = await tx.query<{ stop: Stop | null }>({
    name: 'find_stop',
    text: `SELECT CASE WHEN mayfly.is_killed(NULL, NULL, NULL, $1, $2) THEN 'killed'
        WHEN EXISTS (SELECT FROM mayfly.target_controls WHERE target = $2 AND paused) THEN 'paused'
        WHEN mayfly.may_issue_on($2) IS NOT TRUE THEN 'failed_over' END AS stop`,
    values: [entitlement, target],
  });
  const [row] = rows;
  if (row === undefined) throw new Error('The store did not say what stops a grant.');
  return row.stop;
}
