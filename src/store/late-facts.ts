import type { Facts } from '../domain/grant.ts';
import type { GrantId } from '../domain/ids.ts';
import type { Transaction } from './database.ts';

/** What its obligation had come to before. */
export interface TakenUpAgain {
  readonly containedAt: Date | null;
  readonly cleanAt: Date | null;
  readonly writtenOffAt: Date | null;
}

/**
 * Facts of a credential that was made after its grant had ended. Whoever ended it meanwhile did so without them: its obligation is due
 * once more, also under a claim that is about to call it contained. Undefined where nobody has
 * begun.
 */
export async function keepLateFacts(
  tx: Transaction,
  grantId: GrantId,
  facts: Facts,
): Promise<TakenUpAgain | undefined> {
  const rows = await tx.query<{ contained_at: Date | null; clean_at: Date | null; written_off_at: Date | null }>({
    name: 'keep_late_facts',
    // The obligation first, as whoever records what became of it.
    text: `WITH held AS (SELECT grant_id, state, contained_at, clean_at, written_off_at FROM mayfly.revocations WHERE grant_id = $1 AND state <> 'scheduled' FOR NO KEY UPDATE),
      kept AS (
        UPDATE mayfly.grants g SET facts = coalesce(g.facts, $2), state = CASE g.state WHEN 'revoked' THEN 'revoking' ELSE g.state END
        FROM held h WHERE g.id = h.grant_id RETURNING g.id)
      UPDATE mayfly.revocations r SET state = 'due', due_at = CASE h.state WHEN 'running' THEN r.due_at ELSE $3 END, try_at = $3, attempts = 0,
        contained_at = NULL, clean_at = NULL, overdue_at = NULL, claimed_by = NULL, claimed_until = NULL,
        written_off_at = NULL, written_off_by = NULL, written_off_reason = NULL
      FROM held h, kept k WHERE r.grant_id = k.id AND h.state <> 'due' RETURNING h.contained_at, h.clean_at, h.written_off_at`,
    values: [grantId, JSON.stringify(facts), tx.now],
  });
  const [was] = rows;
  return was && { containedAt: was.contained_at, cleanAt: was.clean_at, writtenOffAt: was.written_off_at };
}
