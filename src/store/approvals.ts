import type { ApprovalState, LapsedBecause } from '../domain/approval.ts';
import type { ApprovalId, DecisionId, GrantId, TaskId } from '../domain/ids.ts';
import type { ParamValue } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';

/** What somebody who may approve said. */
export interface Word {
  readonly by: string;
  /** The groups that it counts for. */
  readonly groups: readonly string[];
  readonly at: string;
  readonly decision: 'approve' | 'deny' | 'withdraw';
  readonly reason: string;
}

/** Exactly what was asked for: what the digest of an approval is of. No secrets. */
export interface Asked {
  readonly task_id: string;
  readonly owner: { readonly workload: string; readonly key: string | null; readonly instance: string | null };
  /** The definitions by the catalog, with the provider's own terms. */
  readonly entitlement: Readonly<Record<string, unknown>>;
  readonly target: Readonly<Record<string, unknown>>;
  readonly params: Readonly<Record<string, ParamValue>>;
  /** The life that it would have had then, cut to what was allowed. */
  readonly ttl_seconds: number;
  /** How early an end of it counts. */
  readonly guarantee: string;
  /** Thumbprint of the key that it is to be sealed to. */
  readonly delivery: string | null;
  readonly justification: string | null;
  /** For one connection only, and never renewed. */
  readonly per_call: boolean;
}

export interface Approval {
  readonly id: ApprovalId;
  readonly grantId: GrantId;
  readonly taskId: TaskId;
  readonly target: string;
  readonly decisionId: DecisionId;
  readonly state: ApprovalState;
  readonly groups: readonly string[];
  readonly asked: Asked;
  readonly digest: Buffer;
  readonly words: readonly Word[];
  readonly requestedAt: Date;
  readonly expiresAt: Date;
  readonly endedAt: Date | null;
  readonly because: LapsedBecause | null;
}

export type ApprovalRow = {
  id: ApprovalId;
  grant_id: GrantId;
  task_id: TaskId;
  target: string;
  decision_id: DecisionId;
  state: ApprovalState;
  groups: string[];
  asked: Asked;
  digest: Buffer;
  words: Word[];
  requested_at: Date;
  expires_at: Date;
  ended_at: Date | null;
  because: LapsedBecause | null;
};

/** Columns of `mayfly.approvals a`: for `toApproval`. */
export const APPROVAL_COLUMNS = `a.id, a.grant_id, a.task_id, a.target, a.decision_id, a.state, a.groups, a.asked, a.digest, a.words, a.requested_at, a.expires_at,
    a.ended_at, a.because`;

export async function insertApproval(
  tx: Transaction,
  approval: Omit<Approval, 'state' | 'words' | 'requestedAt' | 'endedAt' | 'because'>,
): Promise<void> {
  await tx.query({
    text: `INSERT INTO mayfly.approvals (id, grant_id, task_id, target, decision_id, state, groups, asked, digest, requested_at, expires_at)
      VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, $9, $10)`,
    values: [
      ...[approval.id, approval.grantId, approval.taskId, approval.target, approval.decisionId, approval.groups],
      ...[JSON.stringify(approval.asked), approval.digest, tx.now, approval.expiresAt],
    ],
  });
}

export async function findApproval(db: Queryable, id: ApprovalId): Promise<Approval | undefined> {
  const rows = await db.query<ApprovalRow>({
    text: `SELECT ${APPROVAL_COLUMNS} FROM mayfly.approvals a WHERE a.id = $1`,
    values: [id],
  });
  return rows.map(toApproval)[0];
}

export async function findApprovalOfGrant(db: Queryable, grantId: GrantId): Promise<Approval | undefined> {
  const rows = await db.query<ApprovalRow>({
    text: `SELECT ${APPROVAL_COLUMNS} FROM mayfly.approvals a WHERE a.grant_id = $1`,
    values: [grantId],
  });
  return rows.map(toApproval)[0];
}

/** How many a task has had, and how many of them are neither over nor collected. */
export async function countApprovals(tx: Transaction, taskId: TaskId): Promise<{ had: number; open: number }> {
  const rows = await tx.query<{ had: number; open: number }>({
    text: `SELECT count(*)::int AS had, (count(*) FILTER (WHERE state IN ('pending', 'approved')))::int AS open
      FROM mayfly.approvals WHERE task_id = $1`,
    values: [taskId],
  });
  return rows[0] ?? { had: 0, open: 0 };
}

export interface ApprovalFilter {
  readonly state?: ApprovalState | undefined;
  readonly taskId?: TaskId | undefined;
}

/**
 * A page of approvals, the latest first.
 * @param within Only those about these targets; null: all.
 */
export async function listApprovals(
  db: Queryable,
  filter: ApprovalFilter,
  within: readonly string[] | null,
  before: ApprovalId | null,
  limit: number,
): Promise<Approval[]> {
  const rows = await db.query<ApprovalRow>({
    text: `SELECT ${APPROVAL_COLUMNS} FROM mayfly.approvals a
      WHERE ($1::text IS NULL OR a.state = $1) AND ($2::uuid IS NULL OR a.task_id = $2) AND ($3::text[] IS NULL OR a.target = ANY($3))
        AND ($4::uuid IS NULL OR a.id < $4) ORDER BY a.id DESC LIMIT $5`,
    values: [filter.state ?? null, filter.taskId ?? null, within, before, limit],
  });
  return rows.map(toApproval);
}

/** Until the end of the transaction nobody else moves it. A statement of its own: one that waits here goes on seeing what was before. */
export async function lockApproval(tx: Transaction, id: ApprovalId): Promise<void> {
  await tx.query({ text: 'SELECT FROM mayfly.approvals WHERE id = $1 FOR NO KEY UPDATE', values: [id] });
}

/**
 * One more word on what is pending, and still in time: approved once there is one of every group. For whoever holds it (`lockApproval`)
 * and has read the words since: undefined where it is not pending any more.
 * @param expiresAt Until when it can be collected.
 */
export async function addWord(
  tx: Transaction,
  id: ApprovalId,
  state: 'pending' | 'approved' | 'denied',
  word: Word,
  expiresAt: Date,
): Promise<Approval | undefined> {
  const rows = await tx.query<ApprovalRow>({
    text: `WITH said AS (
        UPDATE mayfly.approvals a SET state = $2, words = a.words || $3::jsonb, ended_at = CASE $2 WHEN 'denied' THEN $4::timestamptz END,
          expires_at = CASE $2 WHEN 'approved' THEN $5 ELSE a.expires_at END
        WHERE a.id = $1 AND a.state = 'pending' AND a.expires_at > $4 RETURNING ${APPROVAL_COLUMNS}),
      moved AS (
        UPDATE mayfly.grants g SET state = $2 FROM said s WHERE g.id = s.grant_id AND $2 <> 'pending')
      SELECT * FROM said`,
    values: [id, state, JSON.stringify(word), tx.now, expiresAt],
  });
  return rows.map(toApproval)[0];
}

/** Takes an approval back, used or not. Undefined when there is none to take back, or what came of it has ended. What lives of it is for the caller to end. */
export async function withdrawApproval(tx: Transaction, id: ApprovalId, word: Word): Promise<Approval | undefined> {
  await lockApproval(tx, id);
  const rows = await tx.query<ApprovalRow>({
    text: `WITH withdrawn AS (
        UPDATE mayfly.approvals a SET state = 'withdrawn', words = a.words || $2::jsonb, ended_at = $3
        WHERE a.id = $1 AND (a.state = 'approved' OR (a.state = 'collected' AND EXISTS (
          SELECT FROM mayfly.grants g WHERE g.id = a.grant_id AND g.state IN ('minting', 'active')))) RETURNING ${APPROVAL_COLUMNS}),
      denied AS (
        UPDATE mayfly.grants g SET state = 'denied' FROM withdrawn w WHERE g.id = w.grant_id AND g.state = 'approved')
      SELECT * FROM withdrawn`,
    values: [id, JSON.stringify(word), tx.now],
  });
  return rows.map(toApproval)[0];
}

/** Once: what was approved, and still in time, is collected. */
export async function markCollected(tx: Transaction, id: ApprovalId): Promise<boolean> {
  const rows = await tx.query({
    text: `UPDATE mayfly.approvals SET state = 'collected', ended_at = $2 WHERE id = $1 AND state = 'approved' AND expires_at > $2 RETURNING id`,
    values: [id, tx.now],
  });
  return rows.length === 1;
}

/** What waits, and since when. */
export interface ApprovalsSeen {
  readonly pending: number;
  readonly oldestSeconds: number;
}

/** Costs as much as is open. */
export async function readApprovals(db: Queryable): Promise<ApprovalsSeen> {
  const rows = await db.query<{ pending: number; oldest: number }>({
    name: 'read_approvals',
    text: `SELECT count(*)::int AS pending, coalesce(greatest(0, extract(epoch FROM clock_timestamp() - min(requested_at))), 0)::float8 AS oldest
      FROM mayfly.approvals WHERE state = 'pending'`,
    values: [],
  });
  return { pending: rows[0]?.pending ?? 0, oldestSeconds: rows[0]?.oldest ?? 0 };
}

export function toApproval(row: ApprovalRow): Approval {
  return {
    id: row.id,
    grantId: row.grant_id,
    taskId: row.task_id,
    target: row.target,
    decisionId: row.decision_id,
    state: row.state,
    groups: row.groups,
    asked: row.asked,
    digest: row.digest,
    words: row.words,
    requestedAt: row.requested_at,
    expiresAt: row.expires_at,
    endedAt: row.ended_at,
    because: row.because,
  };
}
