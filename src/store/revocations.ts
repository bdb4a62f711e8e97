import type { GrantId } from '../domain/ids.ts';
import type { EndedBy } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';
import { owedAt } from './owed.ts';
import { type Pause, type PauseRow, toPause } from './target-controls.ts';

/** A grant whose obligation fell due by itself. */
export interface FellDue extends EventSubject {
  readonly grantId: GrantId;
  readonly target: string;
  readonly endedBy: EndedBy;
}

/**
 * Turns `scheduled` obligations whose time has come into due ones, and ends their grants: `expired`, or `mint_failed` when
 * the mint never reported. One statement for one target or, with null, for all.
 */
export async function fallDue(tx: Transaction, target: string | null, limit: number): Promise<FellDue[]> {
  const rows = await tx.query<EventRow & { grant_id: GrantId; target: string; ended_by: EndedBy }>({
    name: 'fall_due',
    text: `WITH ripe AS (
        SELECT grant_id FROM mayfly.revocations WHERE state = 'scheduled' AND due_at <= $1 AND ($2::text IS NULL OR target = $2)
        ORDER BY due_at LIMIT $3),
      -- Grant before obligation, as every other end takes them. Both, since only what is locked is looked at as it is now: a
      -- renewal or an activation may have moved its time since this statement began.
      held AS (
        SELECT g.id FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id
        WHERE g.id IN (SELECT grant_id FROM ripe) AND g.state IN ('minting', 'active') AND r.state = 'scheduled' AND r.due_at <= $1
        ORDER BY g.id FOR UPDATE OF g, r SKIP LOCKED),
      ended AS (
        UPDATE mayfly.grants g SET state = 'revoking', ended_at = $1,
          ended_by = CASE g.state WHEN 'minting' THEN 'mint_failed' ELSE 'expired' END
        FROM held h WHERE g.id = h.id
        RETURNING g.id, g.task_id, g.ended_by, g.entitlement, g.guarantee, g.deadline),
      fallen AS (
        UPDATE mayfly.revocations r SET state = 'due', try_at = r.due_at, due_at = ${owedAt('r.due_at')} FROM ended g
        WHERE r.grant_id = g.id AND r.state = 'scheduled' RETURNING r.grant_id, r.target)
      SELECT e.id AS grant_id, f.target, e.ended_by, e.entitlement, ${EVENT_COLUMNS}
      FROM ended e JOIN fallen f ON f.grant_id = e.id JOIN mayfly.tasks t ON t.id = e.task_id`,
    values: [tx.now, target, limit],
  });
  return rows.map((row) => ({ grantId: row.grant_id, target: row.target, endedBy: row.ended_by, ...subjectOf(row) }));
}

/** Claims whose holder fell silent: due again at once. */
export async function releaseLostClaims(
  tx: Transaction,
  limit: number,
): Promise<(EventSubject & { grantId: GrantId; target: string; claimedBy: string })[]> {
  const rows = await tx.query<EventRow & { grant_id: GrantId; target: string; claimed_by: string }>({
    name: 'release_lost_claims',
    text: `WITH lost AS (
        SELECT id, claimed_by FROM mayfly.revocations WHERE state = 'running' AND claimed_until <= $1
        ORDER BY claimed_until LIMIT $2 FOR UPDATE SKIP LOCKED),
      released AS (
        UPDATE mayfly.revocations r SET state = 'due', try_at = $1, claimed_by = NULL, claimed_until = NULL FROM lost
        WHERE r.id = lost.id RETURNING r.grant_id, r.target, lost.claimed_by)
      SELECT r.grant_id, r.target, r.claimed_by, g.entitlement, ${EVENT_COLUMNS} FROM released r JOIN mayfly.grants g ON g.id = r.grant_id
      JOIN mayfly.tasks t ON t.id = g.task_id`,
    values: [tx.now, limit],
  });
  return rows.map((row) => ({
    grantId: row.grant_id,
    target: row.target,
    claimedBy: row.claimed_by,
    ...subjectOf(row),
  }));
}

/** Marks what is not contained `seconds` after it was due. Each obligation once. */
export async function markOverdue(
  tx: Transaction,
  seconds: number,
  limit: number,
): Promise<(EventSubject & { grantId: GrantId; target: string; dueAt: Date })[]> {
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
    text: `SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'due' AND try_at <= (SELECT clock_timestamp())
      UNION SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'contained' AND try_at <= (SELECT clock_timestamp())
      UNION SELECT DISTINCT target FROM mayfly.revocations WHERE state = 'scheduled' AND due_at <= (SELECT clock_timestamp())`,
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
export async function findMoments(
  db: Queryable,
  fromSeconds: number,
  toSeconds: number,
  bucketMillis: number,
): Promise<Moment[]> {
  const rows = await db.query<{ target: string; in_millis: number }>({
    text: `SELECT target, (ceil(extract(epoch FROM due_at - clock_timestamp()) * 1000 / $3) * $3)::float8 AS in_millis
      FROM mayfly.revocations WHERE state = 'scheduled' AND due_at > (SELECT clock_timestamp() + make_interval(secs => $1))
        AND due_at <= (SELECT clock_timestamp() + make_interval(secs => $2)) GROUP BY 1, 2`,
    values: [fromSeconds, toSeconds, bucketMillis],
  });
  return rows.map((row) => ({ target: row.target, inMillis: Math.max(0, row.in_millis) }));
}

export interface Backlog {
  readonly target: string;
  /** `due`: may be tried now; `waiting`: due, and waits for its next try. */
  readonly state: 'due' | 'waiting' | 'running' | 'contained' | 'written_off';
  readonly count: number;
  readonly overdue: number;
  readonly oldestSeconds: number;
  /** Of the one that was tried most often. */
  readonly attempts: number;
}

export interface Queue {
  readonly backlog: readonly Backlog[];
  /** By target, where it is paused. */
  readonly paused: ReadonlyMap<string, Pause>;
  /** By target: grants that ended, and whose value may be known for ever. */
  readonly residual: ReadonlyMap<string, number>;
  /** Kills that stand, by scope. */
  readonly kills: ReadonlyMap<string, number>;
  /** The store may have forgotten kills, and nothing is issued until they are confirmed. */
  readonly killsUnconfirmed: boolean;
}

/** What is in hand, late or written off, per target; scheduled ones are not counted, so that it costs O(due). And what is paused. */
export async function readQueue(db: Queryable): Promise<Queue> {
  const rows = await db.query<
    | (PauseRow & { state: 'paused' })
    | {
        target: string;
        state: Backlog['state'] | 'residual' | 'killed' | 'unconfirmed';
        count: number;
        overdue: number;
        oldest: number;
        attempts: number;
      }
  >({
    name: 'read_queue',
    text: `WITH queue AS (
        SELECT target, CASE WHEN state = 'due' AND try_at > clock_timestamp() THEN 'waiting' ELSE state END AS state, due_at, attempts,
          overdue_at IS NOT NULL AND state IN ('due', 'running') AS overdue
        FROM mayfly.revocations WHERE state IN ('due', 'running', 'contained', 'written_off')),
      counted AS (
        SELECT target, state, count(*)::int AS count, (count(*) FILTER (WHERE overdue))::int AS overdue,
          greatest(0, extract(epoch FROM clock_timestamp() - min(due_at)))::float8 AS oldest, max(attempts) AS attempts FROM queue GROUP BY 1, 2
        UNION ALL SELECT target, 'residual', ended::int, 0, 0, 0 FROM mayfly.residuals WHERE ended > 0
        UNION ALL SELECT scope, 'killed', count(*)::int, 0, 0, 0 FROM mayfly.kills WHERE lifted_at IS NULL GROUP BY scope
        UNION ALL SELECT '', 'unconfirmed', 1, 0, 0, 0 FROM mayfly.timeline WHERE NOT kills_confirmed),
      paused AS (SELECT target, 'paused' AS state, deadlines_held, reason, changed_by, changed_at FROM mayfly.target_controls WHERE paused)
      SELECT * FROM counted FULL JOIN paused USING (target, state)`,
    values: [],
  });
  return {
    backlog: rows.flatMap((row) => {
      if (row.state === 'paused' || row.state === 'residual' || row.state === 'killed' || row.state === 'unconfirmed')
        return [];
      const { target, state, count, overdue, oldest, attempts } = row;
      return [{ target, state, count, overdue, oldestSeconds: oldest, attempts }];
    }),
    paused: new Map(rows.flatMap((row) => (row.state === 'paused' ? [[row.target, toPause(row)] as const] : []))),
    residual: new Map(rows.flatMap((row) => (row.state === 'residual' ? [[row.target, row.count] as const] : []))),
    killsUnconfirmed: rows.some(({ state }) => state === 'unconfirmed'),
    kills: new Map(rows.flatMap((row) => (row.state === 'killed' ? [[row.target, row.count] as const] : []))),
  };
}
