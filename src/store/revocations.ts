import type { Facts } from '../domain/grant.ts';
import type { GrantId, RevocationId, TaskId } from '../domain/ids.ts';
import type { ErrorClass, Evidence } from '../domain/revocation.ts';
import type { EndedBy } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';

/** One obligation in the hands of a worker. Only the holder of `claim` may write its outcome. */
export interface Claimed {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly taskId: TaskId;
  readonly agent: string;
  readonly subject: string;
  readonly txn: string | null;
  readonly entitlement: string;
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

/** A grant whose obligation fell due by itself. */
export interface FellDue {
  readonly grantId: GrantId;
  readonly taskId: TaskId;
  readonly target: string;
  readonly endedBy: EndedBy;
}

/**
 * Turns `scheduled` obligations whose time has come into due ones, and ends their grants: `expired`, or `mint_failed` when
 * the mint never reported. One statement for one target or, with null, for all.
 */
export async function fallDue(tx: Transaction, target: string | null, limit: number): Promise<(FellDue & EventSubject)[]> {
  const rows = await tx.query<EventRow & { grant_id: GrantId; target: string; ended_by: EndedBy }>({
    name: 'fall_due',
    text: `WITH fallen AS (
        UPDATE mayfly.revocations SET state = 'due', try_at = due_at WHERE id IN (
          SELECT id FROM mayfly.revocations WHERE state = 'scheduled' AND due_at <= $1 AND ($2::text IS NULL OR target = $2)
          ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING grant_id, target),
      ended AS (
        UPDATE mayfly.grants g SET state = 'revoking', ended_at = $1,
          ended_by = CASE g.state WHEN 'minting' THEN 'mint_failed' ELSE 'expired' END
        FROM fallen f WHERE g.id = f.grant_id AND g.state IN ('minting', 'active') RETURNING g.id, g.task_id, g.ended_by, g.entitlement)
      SELECT e.id AS grant_id, f.target, e.ended_by, e.entitlement, ${EVENT_COLUMNS}
      FROM ended e JOIN fallen f ON f.grant_id = e.id JOIN mayfly.tasks t ON t.id = e.task_id`,
    values: [tx.now, target, limit],
  });
  return rows.map((row) => ({ grantId: row.grant_id, target: row.target, endedBy: row.ended_by, ...subjectOf(row) }));
}

/** Who and what an audit event of the worker is about. */
export interface EventSubject {
  readonly taskId: TaskId;
  readonly agent: string;
  readonly subject: string;
  readonly txn: string | null;
  readonly entitlement: string;
}
type EventRow = { task_id: TaskId; agent: string; subject: string; txn: string | null; entitlement: string };
const EVENT_COLUMNS = "t.id AS task_id, t.workload_source || ':' || t.workload_subject AS agent, t.subject, t.txn";
function subjectOf(row: EventRow): EventSubject {
  return { taskId: row.task_id, agent: row.agent, subject: row.subject, txn: row.txn, entitlement: row.entitlement };
}

/**
 * Claims what is due on a target, most overdue first, and what is contained but not yet clean. The claim holds until
 * `leaseSeconds` from now unless extended.
 */
export async function claimDue(tx: Transaction, target: string, worker: string, leaseSeconds: number, limit: number): Promise<Claim | undefined> {
  const until = new Date(tx.now.getTime() + leaseSeconds * 1000);
  const rows = await tx.query<
    EventRow & {
      id: RevocationId; grant_id: GrantId; handle: string; facts: Facts | null; deadline: Date; decided_revision: string; ended_by: EndedBy;
      due_at: Date; attempts: number; last_error: ErrorClass | null; contained: boolean; claim_number: string;
    }
  >({
    name: 'claim_due',
    text: `WITH number AS MATERIALIZED (SELECT nextval('mayfly.claim_numbers') AS n),
      chosen AS (
        (SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'due' AND try_at <= $2 ORDER BY try_at LIMIT $5 FOR UPDATE SKIP LOCKED)
        UNION ALL
        (SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'contained' AND try_at <= $2 ORDER BY try_at LIMIT $5 FOR UPDATE SKIP LOCKED)),
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
export async function markContained(tx: Transaction, claim: Claim, done: readonly Progress[], leaseSeconds: number): Promise<ReadonlySet<RevocationId>> {
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
export async function markClean(tx: Transaction, claim: Claim, done: readonly Progress[]): Promise<ReadonlySet<RevocationId>> {
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
export async function markFailed(tx: Transaction, claim: Claim, failures: readonly Failure[]): Promise<ReadonlySet<RevocationId>> {
  const rows = await tx.query<{ id: RevocationId }>({
    name: 'mark_failed',
    text: `UPDATE mayfly.revocations r SET state = CASE r.state WHEN 'running' THEN 'due' ELSE r.state END,
        try_at = $3::timestamptz + make_interval(secs => d.delay), last_error = d.class, last_error_at = $3, claimed_by = NULL, claimed_until = NULL
      FROM jsonb_to_recordset($1) AS d(id uuid, class text, delay float8)
      WHERE r.id = d.id AND r.claim_number = $2 AND r.state IN ('running', 'contained') RETURNING r.id`,
    values: [JSON.stringify(failures.map((f) => ({ id: f.id, class: f.errorClass, delay: f.delaySeconds }))), claim.number, tx.now],
  });
  return new Set(rows.map((row) => row.id));
}

/** Claims whose holder fell silent: due again at once. */
export async function releaseLostClaims(tx: Transaction, limit: number): Promise<(EventSubject & { grantId: GrantId; claimedBy: string })[]> {
  const rows = await tx.query<EventRow & { grant_id: GrantId; claimed_by: string }>({
    name: 'release_lost_claims',
    text: `WITH lost AS (
        SELECT id, claimed_by FROM mayfly.revocations WHERE state = 'running' AND claimed_until <= $1
        ORDER BY claimed_until LIMIT $2 FOR UPDATE SKIP LOCKED),
      released AS (
        UPDATE mayfly.revocations r SET state = 'due', try_at = $1, claimed_by = NULL, claimed_until = NULL FROM lost
        WHERE r.id = lost.id RETURNING r.grant_id, lost.claimed_by)
      SELECT r.grant_id, r.claimed_by, g.entitlement, ${EVENT_COLUMNS} FROM released r JOIN mayfly.grants g ON g.id = r.grant_id
      JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [tx.now, limit],
  });
  return rows.map((row) => ({ grantId: row.grant_id, claimedBy: row.claimed_by, ...subjectOf(row) }));
}

/** Marks what is not contained `seconds` after it was due. Each obligation once. */
export async function markOverdue(tx: Transaction, seconds: number, limit: number): Promise<(EventSubject & { grantId: GrantId; target: string; dueAt: Date })[]> {
  const rows = await tx.query<EventRow & { grant_id: GrantId; target: string; due_at: Date }>({
    name: 'mark_overdue',
    text: `WITH late AS (
        UPDATE mayfly.revocations SET overdue_at = $1 WHERE id IN (
          SELECT id FROM mayfly.revocations WHERE state IN ('due', 'running') AND overdue_at IS NULL
            AND due_at <= $1::timestamptz - make_interval(secs => $2) LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING grant_id, target, due_at)
      SELECT l.grant_id, l.target, l.due_at, g.entitlement, ${EVENT_COLUMNS} FROM late l JOIN mayfly.grants g ON g.id = l.grant_id
      JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [tx.now, seconds, limit],
  });
  return rows.map((row) => ({ grantId: row.grant_id, target: row.target, dueAt: row.due_at, ...subjectOf(row) }));
}

/** Targets with something that a worker could claim now. */
export async function findClaimableTargets(db: Queryable): Promise<string[]> {
  const rows = await db.query<{ target: string }>({
    name: 'find_claimable_targets',
    text: `SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'due' AND try_at <= clock_timestamp()
      UNION SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'contained' AND try_at <= clock_timestamp()
      UNION SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'scheduled' AND due_at <= clock_timestamp()`,
    values: [],
  });
  return rows.map((row) => row.target);
}

export interface Moment {
  readonly target: string;
  /** Milliseconds from now, by the store's clock. */
  readonly inMillis: number;
}

/** The moments at which obligations fall due within the horizon, rounded up to `bucketMillis`, one row for all that share one. */
export async function findMoments(db: Queryable, fromSeconds: number, toSeconds: number, bucketMillis: number): Promise<Moment[]> {
  const rows = await db.query<{ target: string; in_millis: number }>({
    text: `SELECT target, (ceil(extract(epoch FROM due_at - clock_timestamp()) * 1000 / $3) * $3)::float8 AS in_millis
      FROM mayfly.revocations WHERE state = 'scheduled' AND due_at > clock_timestamp() + make_interval(secs => $1)
        AND due_at <= clock_timestamp() + make_interval(secs => $2) GROUP BY 1, 2`,
    values: [fromSeconds, toSeconds, bucketMillis],
  });
  return rows.map((row) => ({ target: row.target, inMillis: Math.max(0, row.in_millis) }));
}

export interface Backlog {
  readonly target: string;
  readonly state: 'due' | 'running' | 'contained';
  readonly count: number;
  readonly overdue: number;
  readonly oldestSeconds: number;
}

/** What is in hand or late, per target; scheduled ones are not counted, so that it costs O(due). */
export async function readBacklog(db: Queryable): Promise<Backlog[]> {
  const rows = await db.query<{ target: string; state: Backlog['state']; count: number; overdue: number; oldest: number }>({
    name: 'read_backlog',
    text: `SELECT target, state, count(*)::int AS count, (count(*) FILTER (WHERE overdue_at IS NOT NULL AND state <> 'contained'))::int AS overdue,
        greatest(0, extract(epoch FROM clock_timestamp() - min(due_at)))::float8 AS oldest
      FROM mayfly.revocations WHERE state IN ('due', 'running', 'contained') GROUP BY 1, 2`,
    values: [],
  });
  return rows.map((row) => ({ target: row.target, state: row.state, count: row.count, overdue: row.overdue, oldestSeconds: row.oldest }));
}
