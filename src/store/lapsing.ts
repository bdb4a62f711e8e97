import type { LapsedBecause } from '../domain/approval.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import type { Workload } from '../domain/task.ts';
import { type Approval, APPROVAL_COLUMNS, type ApprovalRow, toApproval } from './approvals.ts';
import type { Transaction } from './database.ts';

/** One that nothing comes of any more, with what an event about it must tell. */
export interface Lapsed {
  readonly approval: Approval;
  readonly was: 'pending' | 'approved';
  readonly handle: string;
  readonly entitlement: string;
  readonly subject: string;
  readonly txn: string | null;
  readonly workload: Workload;
}

/** Of the open ones: which lapse. */
export type Lapsing =
  | { readonly kind: 'due'; readonly limit: number }
  | { readonly kind: 'tasks'; readonly ids: readonly TaskId[] }
  | { readonly kind: 'grant'; readonly id: GrantId }
  | { readonly kind: 'target'; readonly target: string; readonly entitlement: string | null };

/**
 * Lets open approvals lapse, and with each its grant: `denied`.
 * @param because Null: they were not decided, or not collected, in time.
 */
export async function lapse(tx: Transaction, which: Lapsing, because: LapsedBecause | null): Promise<Lapsed[]> {
  const [held, values] = heldOf(which, tx.now);
  const rows = await tx.query<
    ApprovalRow & {
      was: 'pending' | 'approved';
      handle: string;
      entitlement: string;
      subject: string;
      txn: string | null;
      workload_source: string;
      workload_subject: string;
    }
  >({
    // In the order of their ids, and each before its grant, as all that change several take them.
    text: `WITH held AS (${held}),
      lapsed AS (
        UPDATE mayfly.approvals a SET state = 'lapsed', ended_at = $1,
          because = coalesce($2, CASE h.was WHEN 'pending' THEN 'not_decided_in_time' ELSE 'not_collected_in_time' END)
        FROM held h WHERE a.id = h.id RETURNING ${APPROVAL_COLUMNS}, h.was),
      denied AS (
        UPDATE mayfly.grants g SET state = 'denied' FROM lapsed l WHERE g.id = l.grant_id RETURNING g.id, g.handle, g.entitlement)
      SELECT l.*, d.handle, d.entitlement, t.subject, t.txn, t.workload_source, t.workload_subject
      FROM lapsed l JOIN denied d ON d.id = l.grant_id JOIN mayfly.tasks t ON t.id = l.task_id`,
    values: [tx.now, because, ...values],
  });
  return rows.map((row) => ({
    approval: toApproval(row),
    was: row.was,
    handle: row.handle,
    entitlement: row.entitlement,
    subject: row.subject,
    txn: row.txn,
    workload: { source: row.workload_source, subject: row.workload_subject },
  }));
}

/** SQL that holds them, and its values from `$3` on. */
function heldOf(which: Lapsing, now: Date): [text: string, values: readonly unknown[]] {
  const open = `SELECT a.id, a.state AS was FROM mayfly.approvals a WHERE a.state IN ('pending', 'approved')`;
  const hold = 'ORDER BY a.id FOR NO KEY UPDATE OF a';
  switch (which.kind) {
    case 'due':
      // What another replica has in hand is passed over.
      return [
        `SELECT a.id, a.state AS was FROM mayfly.approvals a WHERE a.state IN ('pending', 'approved') AND a.expires_at <= $3
          ORDER BY a.expires_at LIMIT $4 FOR NO KEY UPDATE OF a SKIP LOCKED`,
        [now, which.limit],
      ];
    case 'tasks':
      return [`${open} AND a.task_id = ANY($3) ${hold}`, [which.ids]];
    case 'grant':
      return [`${open} AND a.grant_id = $3 ${hold}`, [which.id]];
    default:
      return [
        `${open} AND a.target = $3 AND ($4::text IS NULL OR a.asked->'entitlement'->>'name' = $4) ${hold}`,
        [which.target, which.entitlement],
      ];
  }
}
