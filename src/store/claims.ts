import type { Facts } from '../domain/grant.ts';
import type { GrantId, RevocationId } from '../domain/ids.ts';
import type { ErrorClass, Evidence } from '../domain/revocation.ts';
import type { EndedBy } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';

/** One obligation in the hands of a worker. Only the holder of `claim` may write its outcome. */
export interface Claimed extends EventSubject {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly handle: string;
  readonly facts: Facts | null;
  readonly deadline: Date;
  readonly decidedRevision: number;
  readonly endedBy: EndedBy;
  readonly dueAt: Date;
  readonly attempts: number;
  readonly lastError: ErrorClass | null;
  /** Contained already, by an earlier claim: only cleaning is left. */
  readonly contained: boolean;
}

export interface Claim {
  readonly target: string;
  /** Fencing number, from a sequence: a later claim has a larger one. */
  readonly number: bigint;
  readonly items: readonly Claimed[];
}

/**
 * Claims what is due on a target, most overdue first, and what is contained but not yet clean. The claim holds until
 * `leaseSeconds` from now unless extended.
 */
export async function claimDue(
  tx: Transaction,
  target: string,
  worker: string,
  leaseSeconds: number,
  limit: number,
): Promise<Claim | undefined> {
  const until = new Date(tx.now.getTime() + leaseSeconds * 1000);
  const rows = await tx.query<
    EventRow & {
      id: RevocationId;
      grant_id: GrantId;
      handle: string;
      facts: Facts | null;
      deadline: Date;
      decided_revision: string;
      ended_by: EndedBy;
      due_at: Date;
      attempts: number;
      last_error: ErrorClass | null;
      contained: boolean;
      claim_number: string;
    }
  >({
    name: 'claim_due',
    text: `WITH number AS MATERIALIZED (SELECT nextval('mayfly.claim_numbers') AS n),
      to_fence AS (
        SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'due' AND try_at <= $2
        ORDER BY try_at LIMIT $5 FOR UPDATE SKIP LOCKED),
      to_clean AS (
        SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'contained' AND try_at <= $2
        ORDER BY try_at LIMIT $5 FOR UPDATE SKIP LOCKED),
      chosen AS (SELECT id FROM to_fence UNION ALL SELECT id FROM to_clean),
      claimed AS (
        UPDATE mayfly.revocations r SET state = CASE r.state WHEN 'due' THEN 'running' ELSE r.state END,
          attempts = r.attempts + 1, claim_number = n, claimed_by = $3, claimed_until = $4,
          try_at = CASE r.state WHEN 'contained' THEN $4 ELSE r.try_at END
        FROM chosen c, number WHERE r.id = c.id RETURNING r.*)
      SELECT c.id, c.grant_id, g.handle, g.facts, g.deadline, g.decided_revision, g.ended_by, g.entitlement, c.due_at, c.attempts,
        c.last_error, c.state = 'contained' AS contained, c.claim_number, ${EVENT_COLUMNS}
      FROM claimed c JOIN mayfly.grants g ON g.id = c.grant_id JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [target, tx.now, worker, until, limit],
  });
  const first = rows[0];
  if (first === undefined) return undefined;
  const items = rows.map((row) => ({
    ...subjectOf(row),
    id: row.id,
    grantId: row.grant_id,
    handle: row.handle,
    facts: row.facts,
    deadline: row.deadline,
    decidedRevision: Number(row.decided_revision),
    endedBy: row.ended_by,
    dueAt: row.due_at,
    attempts: row.attempts,
    lastError: row.last_error,
    contained: row.contained,
  }));
  return { target, number: BigInt(first.claim_number), items };
}

/** Heartbeat: how many of the claim's items are still ours. Fewer than claimed means that it was lost. */
export async function extendClaim(db: Queryable, claim: Claim, leaseSeconds: number): Promise<number> {
  const rows = await db.query<{ held: number }>({
    name: 'extend_claim',
    text: `WITH held AS (
        UPDATE mayfly.revocations SET claimed_until = clock_timestamp() + make_interval(secs => $3),
          try_at = CASE state WHEN 'contained' THEN clock_timestamp() + make_interval(secs => $3) ELSE try_at END
        WHERE id = ANY($1) AND claim_number = $2 AND state IN ('running', 'contained') RETURNING id)
      SELECT count(*)::int AS held FROM held`,
    values: [claim.items.map((item) => item.id), claim.number, leaseSeconds],
  });
  return rows[0]?.held ?? 0;
}

export interface Progress {
  readonly id: RevocationId;
  readonly evidence: Evidence;
}

/** `running → contained`, and the grants are `revoked`. Answers the ids that were still ours. */
export async function markContained(
  tx: Transaction,
  claim: Claim,
  done: readonly Progress[],
  leaseSeconds: number,
): Promise<ReadonlySet<RevocationId>> {
  const until = new Date(tx.now.getTime() + leaseSeconds * 1000);
  const rows = await tx.query<{ id: RevocationId }>({
    name: 'mark_contained',
    text: `WITH contained AS (
        UPDATE mayfly.revocations r SET state = 'contained', contained_at = $3, evidence = d.evidence, last_error = NULL, last_error_at = NULL,
          try_at = $4, claimed_until = $4
        FROM jsonb_to_recordset($1) AS d(id uuid, evidence jsonb) WHERE r.id = d.id AND r.claim_number = $2 AND r.state = 'running'
        RETURNING r.id, r.grant_id),
      revoked AS (UPDATE mayfly.grants g SET state = 'revoked' FROM contained c WHERE g.id = c.grant_id)
      SELECT id FROM contained`,
    values: [JSON.stringify(done), claim.number, tx.now, until],
  });
  return new Set(rows.map((row) => row.id));
}

/** `contained → clean`. */
export async function markClean(
  tx: Transaction,
  claim: Claim,
  done: readonly Progress[],
): Promise<ReadonlySet<RevocationId>> {
  const rows = await tx.query<{ id: RevocationId }>({
    name: 'mark_clean',
    text: `UPDATE mayfly.revocations r SET state = 'clean', clean_at = $3, evidence = coalesce(r.evidence, '{}') || d.evidence, claimed_by = NULL,
        claimed_until = NULL, last_error = NULL, last_error_at = NULL
      FROM jsonb_to_recordset($1) AS d(id uuid, evidence jsonb)
      WHERE r.id = d.id AND r.claim_number = $2 AND r.state = 'contained' RETURNING r.id`,
    values: [JSON.stringify(done), claim.number, tx.now],
  });
  return new Set(rows.map((row) => row.id));
}

export interface Failure {
  readonly id: RevocationId;
  readonly errorClass: ErrorClass;
  readonly delaySeconds: number;
}

/** `running → due` with the next try; what is contained stays contained and is cleaned later. Never gives up. */
export async function markFailed(
  tx: Transaction,
  claim: Claim,
  failures: readonly Failure[],
): Promise<ReadonlySet<RevocationId>> {
  const rows = await tx.query<{ id: RevocationId }>({
    name: 'mark_failed',
    text: `UPDATE mayfly.revocations r SET state = CASE r.state WHEN 'running' THEN 'due' ELSE r.state END,
        try_at = $3::timestamptz + make_interval(secs => d.delay), last_error = d.class, last_error_at = $3, claimed_by = NULL, claimed_until = NULL
      FROM jsonb_to_recordset($1) AS d(id uuid, class text, delay float8)
      WHERE r.id = d.id AND r.claim_number = $2 AND r.state IN ('running', 'contained') RETURNING r.id`,
    values: [
      JSON.stringify(failures.map((f) => ({ id: f.id, class: f.errorClass, delay: f.delaySeconds }))),
      claim.number,
      tx.now,
    ],
  });
  return new Set(rows.map((row) => row.id));
}
