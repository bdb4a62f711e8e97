import type { Facts } from '../domain/grant.ts';
import type { GrantId, RevocationId } from '../domain/ids.ts';
import type { RevocationState } from '../domain/revocation.ts';
import type { EndedBy } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';

/** What the store has of a grant that a target lists. */
export interface KnownGrant {
  readonly target: string;
  readonly revocation: RevocationState;
  /** Under which it was changed last. Null before the first claim. */
  readonly claimNumber: bigint | null;
  readonly deadline: Date;
}

/** By grant id. Asked after the target was: the intent of whatever it listed is committed by then. */
export async function findKnown(db: Queryable, ids: readonly string[]): Promise<ReadonlyMap<string, KnownGrant>> {
  const rows = await db.query<{
    id: GrantId;
    target: string;
    state: RevocationState;
    claim: string | null;
    deadline: Date;
  }>({
    name: 'find_known_grants',
    text: `SELECT g.id, g.target, r.state, r.claim_number AS claim, g.deadline FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id
      WHERE g.id = ANY($1)`,
    values: [ids],
  });
  return new Map(
    rows.map(({ id, target, state, claim, deadline }) => [
      id,
      { target, revocation: state, claimNumber: claim === null ? null : BigInt(claim), deadline },
    ]),
  );
}

/** A grant that is alive here. */
export interface AliveGrant extends EventSubject {
  readonly grantId: GrantId;
  readonly handle: string;
  readonly facts: Facts | null;
  readonly deadline: Date;
  /** It was told before that the target has it no more. */
  readonly lost: boolean;
  /** The drift that was told before. */
  readonly drift: readonly string[];
  readonly usedSince: Date | null;
}

/**
 * Grants of the target that are active, and were before `since`, with their handles in (`after`, `upTo`]: those of one page. Null:
 * no such bound. At most `limit`, in the order of their handles.
 */
export async function findAlive(
  db: Queryable,
  target: string,
  since: Date,
  after: string | null,
  upTo: string | null,
  limit: number,
): Promise<AliveGrant[]> {
  const rows = await db.query<
    EventRow & {
      grant_id: GrantId;
      handle: string;
      facts: Facts | null;
      deadline: Date;
      lost: boolean;
      drift: string[] | null;
      used_since: Date | null;
    }
  >({
    name: 'find_alive_grants',
    text: `SELECT g.id AS grant_id, g.handle, g.facts, g.deadline, g.entitlement, s.lost_at IS NOT NULL AS lost, s.drift, s.used_since, ${EVENT_COLUMNS}
      FROM mayfly.grants g JOIN mayfly.tasks t ON t.id = g.task_id LEFT JOIN mayfly.grant_sightings s ON s.grant_id = g.id
      WHERE g.target = $1 AND g.state = 'active' AND g.activated_at < $2
        AND g.handle COLLATE "C" > coalesce($3, '') AND ($4::text IS NULL OR g.handle COLLATE "C" <= $4)
      ORDER BY g.handle COLLATE "C" LIMIT $5`,
    values: [target, since, after, upTo, limit],
  });
  return rows.map((row) => ({
    ...subjectOf(row),
    grantId: row.grant_id,
    handle: row.handle,
    facts: row.facts,
    deadline: row.deadline,
    lost: row.lost,
    drift: row.drift ?? [],
    usedSince: row.used_since,
  }));
}

/** What is to be told of a living grant from now on. */
export interface Sighting {
  readonly grantId: GrantId;
  readonly lost: boolean;
  readonly drift: readonly string[];
  readonly usedSince: Date | null;
}

/** @returns the grants that are still active: of the others nothing is told, their end is under way. */
export async function recordSightings(tx: Transaction, sightings: readonly Sighting[]): Promise<ReadonlySet<GrantId>> {
  const rows = sightings.map(({ grantId, lost, drift, usedSince }) => ({
    ...{ grant_id: grantId, lost_at: lost ? tx.now : null, drift, used_since: usedSince },
  }));
  const recorded = await tx.query<{ grant_id: GrantId }>({
    name: 'record_sightings',
    text: `INSERT INTO mayfly.grant_sightings AS s
      SELECT f.* FROM jsonb_populate_recordset(NULL::mayfly.grant_sightings, $1) f JOIN mayfly.grants g ON g.id = f.grant_id WHERE g.state = 'active'
      ON CONFLICT (grant_id) DO UPDATE SET lost_at = CASE WHEN excluded.lost_at IS NULL THEN NULL ELSE coalesce(s.lost_at, excluded.lost_at) END,
        drift = excluded.drift, used_since = excluded.used_since
      RETURNING grant_id`,
    values: [JSON.stringify(rows)],
  });
  return new Set(recorded.map((row) => row.grant_id));
}

/** A grant that is owed its end once more. */
export interface Returned extends EventSubject {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly endedBy: EndedBy;
  /** Null for what was contained and not clean yet, or written off. */
  readonly cleanAt: Date | null;
  /** When an operator had given it up. */
  readonly writtenOffAt: Date | null;
}

/**
 * Credentials that were contained, gone or written off, and live in the target: their grants are `revoking` and their obligations due, with
 * what the target has of them now.
 */
export async function reopen(
  tx: Transaction,
  found: readonly { readonly grantId: string; readonly facts: Facts | null; readonly claimNumber?: bigint }[],
): Promise<Returned[]> {
  const rows = await tx.query<
    EventRow & {
      id: RevocationId;
      grant_id: GrantId;
      ended_by: EndedBy;
      clean_at: Date | null;
      written_off_at: Date | null;
    }
  >({
    name: 'reopen_revocations',
    // Grant before obligation, in the order of their ids, as every other end takes them.
    text: `WITH held AS (
        SELECT g.id, r.clean_at, r.written_off_at, coalesce(f.facts, g.facts) AS facts, f.claim FROM jsonb_to_recordset($1) AS f(id uuid, facts jsonb, claim bigint)
        JOIN mayfly.grants g ON g.id = f.id JOIN mayfly.revocations r ON r.grant_id = g.id
        WHERE (g.state = 'revoked' AND (r.state = 'clean' OR (r.state = 'contained' AND r.claim_number = f.claim)))
          OR (g.state = 'revoking' AND r.state = 'written_off') ORDER BY g.id FOR NO KEY UPDATE OF g, r),
      grants AS (UPDATE mayfly.grants g SET state = 'revoking', facts = h.facts FROM held h WHERE g.id = h.id
        RETURNING g.id, g.task_id, g.entitlement, g.ended_by, h.clean_at, h.written_off_at),
      reopened AS (
        UPDATE mayfly.revocations r SET state = 'due', due_at = $2, try_at = $2, attempts = 0, contained_at = NULL, clean_at = NULL,
          overdue_at = NULL, claimed_by = NULL, claimed_until = NULL, written_off_at = NULL, written_off_by = NULL, written_off_reason = NULL
        FROM held h WHERE r.grant_id = h.id RETURNING r.id, r.grant_id)
      SELECT r.id, r.grant_id, g.ended_by, g.clean_at, g.written_off_at, g.entitlement, ${EVENT_COLUMNS}
      FROM reopened r JOIN grants g ON g.id = r.grant_id JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [
      JSON.stringify(
        found.map(({ grantId, facts, claimNumber: n }) => ({ id: grantId, facts, claim: n && String(n) })),
      ),
      tx.now,
    ],
  });
  return rows.map((row) => ({
    ...subjectOf(row),
    id: row.id,
    grantId: row.grant_id,
    endedBy: row.ended_by,
    cleanAt: row.clean_at,
    writtenOffAt: row.written_off_at,
  }));
}
