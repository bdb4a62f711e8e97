import type { AuditEvent } from '../domain/audit-event.ts';
import type { Facts, Guarantee } from '../domain/grant.ts';
import type { GrantId, RevocationId } from '../domain/ids.ts';
import type { ErrorClass, Evidence } from '../domain/revocation.ts';
import type { EndedBy } from '../domain/task.ts';
import { auditRows } from './audit-rows.ts';
import type { Queryable } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';

/** One obligation in the hands of a worker. Only the holder of `claim` may write its outcome. */
export interface Claimed extends EventSubject {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly handle: string;
  readonly facts: Facts | null;
  readonly deadline: Date;
  /** When the store failed over, or was set back, where that was after the grant was intended: it may have forgotten a renewal. */
  readonly setBackAt?: Date;
  readonly decidedRevision: number;
  readonly guarantee: Guarantee['revocation'];
  readonly endedBy: EndedBy;
  /** Ahead of now: its target can only let it expire, and has not yet. */
  readonly dueAt: Date;
  readonly attempts: number;
  /** Contained already, by an earlier claim: only cleaning is left. */
  readonly contained: boolean;
  readonly claimNumber: bigint;
}

export interface Claim {
  readonly target: string;
  /** Fencing number, from a sequence: a later claim has a larger one. */
  readonly number: bigint;
  /** The store's clock when it was claimed, and `performance.now()` when that was read. */
  readonly at: Date;
  readonly atHere: number;
  readonly items: readonly Claimed[];
}

/**
 * What the store's clock shows now, carried on by ours from the moment of the claim, for the times of events. Behind by what the
 * claim's answer took, never ahead: what a later claim tells of the same item is told after what an earlier one told.
 */
export function claimClock(claim: Claim): Date {
  return new Date(claim.at.getTime() + performance.now() - claim.atHere);
}

/**
 * Claims what is due on a target, most overdue first, and what is contained but not yet clean. The claim holds until
 * `leaseSeconds` from now unless extended. One statement: its own transaction.
 * @param early Also what is due and waits for its next try.
 */
export async function claimDue(
  db: Queryable,
  target: string,
  worker: string,
  leaseSeconds: number,
  limit: number,
  early = false,
): Promise<Claim | undefined> {
  const rows = await db.query<
    EventRow & {
      id: RevocationId;
      grant_id: GrantId;
      handle: string;
      facts: Facts | null;
      deadline: Date;
      set_back_at: Date | null;
      decided_revision: string;
      guarantee: Guarantee['revocation'];
      ended_by: EndedBy;
      due_at: Date;
      attempts: number;
      contained: boolean;
      claim_number: string;
      now: Date;
    }
  >({
    name: 'claim_due',
    text: `WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now, nextval('mayfly.claim_numbers') AS n),
      to_fence AS (
        SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'due' AND try_at <= (SELECT CASE WHEN $5 THEN 'infinity' ELSE now END FROM clock)
        ORDER BY try_at LIMIT $4 FOR UPDATE SKIP LOCKED),
      to_clean AS (
        SELECT id FROM mayfly.revocations WHERE target = $1 AND state = 'contained' AND try_at <= (SELECT now FROM clock)
        ORDER BY try_at LIMIT $4 FOR UPDATE SKIP LOCKED),
      -- On a paused target only what a kill wants, and what has reached its deadline; not even that if the operator said so.
      pause AS MATERIALIZED (SELECT deadlines_held FROM mayfly.target_controls WHERE target = $1 AND paused),
      to_fence_all_the_same AS (
        SELECT r.id FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id
        WHERE r.target = $1 AND r.state = 'due' AND r.try_at <= (SELECT now FROM clock)
          AND (r.urgent_at IS NOT NULL OR (g.deadline <= (SELECT now FROM clock) AND NOT (SELECT deadlines_held FROM pause)))
        ORDER BY r.try_at LIMIT $4 FOR UPDATE OF r SKIP LOCKED),
      -- What is to be cleaned takes the places that fencing leaves.
      chosen AS (
        SELECT id FROM (
          SELECT id, 1 AS turn FROM to_fence WHERE NOT EXISTS (SELECT FROM pause)
          UNION ALL SELECT id, 2 FROM to_clean WHERE NOT EXISTS (SELECT FROM pause)
          UNION ALL SELECT id, 1 FROM to_fence_all_the_same WHERE EXISTS (SELECT FROM pause)) each
        ORDER BY turn LIMIT $4),
      -- Not noted yet counts, too. The clocks of a store's servers may differ.
      set_back AS MATERIALIZED (
        SELECT CASE WHEN timeline = mayfly.current_timeline() THEN changed_at ELSE (SELECT now FROM clock) END AS at FROM mayfly.timeline),
      claimed AS (
        UPDATE mayfly.revocations r SET state = CASE r.state WHEN 'due' THEN 'running' ELSE r.state END,
          attempts = r.attempts + 1, claim_number = n, claimed_by = $2, claimed_until = now + make_interval(secs => $3),
          try_at = CASE r.state WHEN 'contained' THEN now + make_interval(secs => $3) ELSE r.try_at END, claimed_at = now
        FROM chosen c, clock WHERE r.id = c.id RETURNING r.*, now)
      SELECT c.id, c.grant_id, g.handle, g.facts, g.deadline,
        (SELECT at FROM set_back WHERE g.created_at < at + interval '5 minutes') AS set_back_at, g.decided_revision, g.guarantee->>'revocation' AS guarantee,
        g.ended_by, g.entitlement, c.due_at, c.attempts,
        c.state = 'contained' AS contained, c.claim_number, c.now, ${EVENT_COLUMNS}
      FROM claimed c JOIN mayfly.grants g ON g.id = c.grant_id JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [target, worker, leaseSeconds, limit, early],
  });
  const atHere = performance.now();
  const first = rows[0];
  if (first === undefined) return undefined;
  const items = rows.map((row) => ({
    ...subjectOf(row),
    id: row.id,
    grantId: row.grant_id,
    handle: row.handle,
    facts: row.facts,
    deadline: row.deadline,
    ...(row.set_back_at !== null && { setBackAt: row.set_back_at }),
    decidedRevision: Number(row.decided_revision),
    guarantee: row.guarantee,
    endedBy: row.ended_by,
    dueAt: row.due_at,
    attempts: row.attempts,
    contained: row.contained,
    claimNumber: BigInt(row.claim_number),
  }));
  return { target, number: BigInt(first.claim_number), at: first.now, atHere, items };
}

/** Lets what waits for its next try on a target be tried now. A wait that is a claim's is left alone, and one for an expiry. */
export async function hasten(db: Queryable, target: string): Promise<void> {
  await db.query({
    name: 'hasten',
    text: `UPDATE mayfly.revocations SET try_at = clock_timestamp() WHERE id IN (
        SELECT id FROM mayfly.revocations WHERE target = $1 AND state IN ('due', 'contained') AND claimed_until IS NULL
          AND try_at > clock_timestamp() AND due_at <= clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED)`,
    values: [target],
  });
}

/** Heartbeat: how many of the items are still ours. Fewer than given means that some were lost. */
export async function extendClaims(
  db: Queryable,
  items: readonly Pick<Claimed, 'id' | 'claimNumber'>[],
  leaseSeconds: number,
): Promise<number> {
  const rows = await db.query<{ held: number }>({
    name: 'extend_claims',
    // A row whose outcome is being recorded is left as it is: a beat that waits for it, with others in hand, closes a circle.
    text: `WITH d AS (SELECT * FROM jsonb_to_recordset($1) AS d(id uuid, claim bigint)),
      free AS (
        SELECT r.id FROM mayfly.revocations r JOIN d ON r.id = d.id AND r.claim_number = d.claim
        WHERE r.state IN ('running', 'contained') FOR NO KEY UPDATE OF r SKIP LOCKED),
      extended AS (
        UPDATE mayfly.revocations r SET claimed_until = greatest(claimed_until, clock_timestamp() + make_interval(secs => $2)),
          try_at = CASE state WHEN 'contained' THEN greatest(try_at, clock_timestamp() + make_interval(secs => $2)) ELSE try_at END
        FROM free f WHERE r.id = f.id)
      SELECT count(*)::int AS held FROM mayfly.revocations r JOIN d ON r.id = d.id AND r.claim_number = d.claim
      WHERE r.state IN ('running', 'contained')`,
    values: [JSON.stringify(items.map(({ id, claimNumber }) => ({ id, claim: String(claimNumber) }))), leaseSeconds],
  });
  return rows[0]?.held ?? 0;
}

/** One item's outcome, with the event that tells of it. Written only while the item's claim is ours. */
export interface Outcome {
  readonly item: Pick<Claimed, 'id' | 'claimNumber'>;
  /** Null: nothing new to tell. */
  readonly event: AuditEvent | null;
  readonly now: Date;
}

/** `running → contained`, and the grants are `revoked`. Answers the ids that were still ours. */
export async function markContained(
  db: Queryable,
  done: readonly (Outcome & { evidence: Evidence })[],
  leaseSeconds: number,
): Promise<ReadonlySet<RevocationId>> {
  const rows = await db.query<{ id: RevocationId }>({
    name: 'mark_contained',
    text: `WITH contained AS (
        UPDATE mayfly.revocations r SET state = 'contained', contained_at = clock_timestamp(), evidence = d.evidence, last_error = NULL,
          last_error_at = NULL, try_at = clock_timestamp() + make_interval(secs => $2), claimed_until = clock_timestamp() + make_interval(secs => $2)
        FROM jsonb_to_recordset($1) AS d(id uuid, claim bigint, evidence jsonb, event jsonb)
        WHERE r.id = d.id AND r.claim_number = d.claim AND r.state = 'running' RETURNING r.id, r.grant_id, d.event),
      -- In the order of their ids: an end that came too late holds those that it waited for.
      held AS (SELECT g.id FROM mayfly.grants g JOIN contained c ON c.grant_id = g.id ORDER BY g.id FOR NO KEY UPDATE OF g),
      revoked AS (UPDATE mayfly.grants g SET state = 'revoked' FROM held h WHERE g.id = h.id),
      told AS (${tellOf('contained')})
      SELECT id FROM contained`,
    values: [outcomeRows(done), leaseSeconds],
  });
  return new Set(rows.map((row) => row.id));
}

/** `contained → clean`. */
export async function markClean(
  db: Queryable,
  done: readonly (Outcome & { evidence: Evidence })[],
): Promise<ReadonlySet<RevocationId>> {
  const rows = await db.query<{ id: RevocationId }>({
    name: 'mark_clean',
    text: `WITH cleaned AS (
        UPDATE mayfly.revocations r SET state = 'clean', clean_at = clock_timestamp(), evidence = coalesce(r.evidence, '{}') || d.evidence,
          claimed_by = NULL, claimed_until = NULL, last_error = NULL, last_error_at = NULL
        FROM jsonb_to_recordset($1) AS d(id uuid, claim bigint, evidence jsonb, event jsonb)
        WHERE r.id = d.id AND r.claim_number = d.claim AND r.state = 'contained' RETURNING r.id, d.event),
      told AS (${tellOf('cleaned')})
      SELECT id FROM cleaned`,
    values: [outcomeRows(done)],
  });
  return new Set(rows.map((row) => row.id));
}

/** What is contained and may not be cleaned yet stays so: no failure, nobody's claim, and due for cleaning after so many seconds. */
export async function postpone(
  db: Queryable,
  waiting: readonly { readonly item: Pick<Claimed, 'id' | 'claimNumber'>; readonly seconds: number }[],
): Promise<void> {
  await db.query({
    name: 'postpone',
    text: `UPDATE mayfly.revocations r SET claimed_by = NULL, claimed_until = NULL, last_error = NULL, last_error_at = NULL,
        try_at = clock_timestamp() + make_interval(secs => d.seconds)
      FROM jsonb_to_recordset($1) AS d(id uuid, claim bigint, seconds float8)
      WHERE r.id = d.id AND r.claim_number = d.claim AND r.state = 'contained'`,
    values: [
      JSON.stringify(waiting.map(({ item, seconds }) => ({ id: item.id, claim: String(item.claimNumber), seconds }))),
    ],
  });
}

/** `running → due` with the next try; what is contained stays contained and is cleaned later. Never gives up. No class: it is no failure to wait until it is owed. */
export async function markFailed(
  db: Queryable,
  failed: readonly (Outcome & { errorClass: ErrorClass | null; delaySeconds: number })[],
): Promise<ReadonlySet<RevocationId>> {
  const rows = await db.query<{ id: RevocationId }>({
    name: 'mark_failed',
    text: `WITH failed AS (
        UPDATE mayfly.revocations r SET state = CASE r.state WHEN 'running' THEN 'due' ELSE r.state END,
          try_at = greatest(clock_timestamp() + make_interval(secs => d.delay), CASE WHEN d.class IS NULL THEN r.due_at END), last_error = d.class,
          last_error_at = CASE WHEN d.class IS NOT NULL THEN clock_timestamp() END, claimed_by = NULL, claimed_until = NULL
        FROM jsonb_to_recordset($1) AS d(id uuid, claim bigint, class text, delay float8, event jsonb)
        WHERE r.id = d.id AND r.claim_number = d.claim AND r.state IN ('running', 'contained') RETURNING r.id, d.event),
      told AS (${tellOf('failed')})
      SELECT id FROM failed`,
    values: [outcomeRows(failed)],
  });
  return new Set(rows.map((row) => row.id));
}

/** The events of the rows that were changed, and of no others, in the same statement. */
function tellOf(changed: string): string {
  return `INSERT INTO mayfly.audit_events SELECT e.* FROM ${changed} c, jsonb_populate_record(NULL::mayfly.audit_events, nullif(c.event, 'null')) e
    WHERE c.event IS NOT NULL AND c.event <> 'null'`;
}

function outcomeRows(
  outcomes: readonly (Outcome & { evidence?: Evidence; errorClass?: ErrorClass | null; delaySeconds?: number })[],
): string {
  return JSON.stringify(
    outcomes.map(({ item, event, now, evidence, errorClass, delaySeconds }) => ({
      id: item.id,
      claim: String(item.claimNumber),
      evidence,
      class: errorClass,
      delay: delaySeconds,
      event: event && auditRows([event], now)[0],
    })),
  );
}
