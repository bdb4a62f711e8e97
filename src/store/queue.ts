import type { GrantState, Guarantee } from '../domain/grant.ts';
import type { GrantId, RevocationId, TaskId } from '../domain/ids.ts';
import type { ErrorClass, Evidence, RevocationState } from '../domain/revocation.ts';
import type { EndedBy } from '../domain/task.ts';
import type { Queryable, Transaction } from './database.ts';
import { EVENT_COLUMNS, type EventRow, type EventSubject, subjectOf } from './event-subject.ts';

/** Where a revocation stands in the queue: its state, but `due` only while it may be tried now, and `waiting` until its next try. */
export type QueueState = RevocationState | 'waiting';

/** A revocation as an operator looks at it. */
export interface QueuedRevocation extends EventSubject {
  readonly id: RevocationId;
  readonly grantId: GrantId;
  readonly grantState: GrantState;
  readonly handle: string;
  readonly target: string;
  readonly state: RevocationState;
  /** Null while the grant lives. */
  readonly endedBy: EndedBy | null;
  readonly guarantee: Guarantee['revocation'];
  /** Its target can only let it expire, and has not yet. */
  readonly awaitsExpiry: boolean;
  readonly deadline: Date;
  readonly dueAt: Date;
  readonly tryAt: Date;
  readonly attempts: number;
  readonly lastError: ErrorClass | null;
  readonly lastErrorAt: Date | null;
  readonly overdueAt: Date | null;
  /** Who works on it now. */
  readonly holder: { readonly worker: string; readonly since: Date | null; readonly until: Date } | null;
  readonly evidence: Evidence | null;
  readonly containedAt: Date | null;
  readonly cleanAt: Date | null;
  readonly writtenOff: { readonly at: Date; readonly by: string; readonly reason: string } | null;
}

export interface QueueFilter {
  /** Without one: all that is due, running, contained or written off. */
  readonly state?: QueueState | undefined;
  readonly target?: string | undefined;
  readonly endedBy?: EndedBy | undefined;
  readonly taskId?: TaskId | undefined;
  readonly grantId?: GrantId | undefined;
  readonly overdue?: boolean | undefined;
  /** Due at this time or later. */
  readonly since?: Date | undefined;
}

type Row = EventRow & {
  id: RevocationId;
  grant_id: GrantId;
  grant_state: GrantState;
  handle: string;
  target: string;
  state: RevocationState;
  ended_by: EndedBy | null;
  guarantee: Guarantee['revocation'];
  awaits_expiry: boolean;
  deadline: Date;
  due_at: Date;
  try_at: Date;
  attempts: number;
  last_error: ErrorClass | null;
  last_error_at: Date | null;
  overdue_at: Date | null;
  claimed_by: string | null;
  claimed_at: Date | null;
  claimed_until: Date | null;
  evidence: Evidence | null;
  contained_at: Date | null;
  clean_at: Date | null;
  written_off_at: Date | null;
  written_off_by: string | null;
  written_off_reason: string | null;
};

const SELECT = `SELECT r.id, r.grant_id, g.state AS grant_state, g.handle, r.target, r.state, g.ended_by, g.deadline, r.due_at, r.try_at, r.attempts,
    r.last_error, r.last_error_at, r.overdue_at, r.claimed_by, r.claimed_at, r.claimed_until, r.evidence, r.contained_at, r.clean_at, r.written_off_at,
    r.written_off_by, r.written_off_reason, g.entitlement,
    g.guarantee->>'revocation' AS guarantee, r.state = 'due' AND r.due_at > clock_timestamp() AS awaits_expiry, ${EVENT_COLUMNS}
  FROM mayfly.revocations r JOIN mayfly.grants g ON g.id = r.grant_id JOIN mayfly.tasks t ON t.id = g.task_id`;

/** Written out, not bound: only so does the planner see that a partial index has them all. */
const STATES: Readonly<Record<QueueState | 'open', string>> = {
  open: `r.state IN ('due', 'running', 'contained', 'written_off')`,
  scheduled: `r.state = 'scheduled'`,
  due: `r.state = 'due' AND r.try_at <= clock_timestamp()`,
  waiting: `r.state = 'due' AND r.try_at > clock_timestamp()`,
  running: `r.state = 'running'`,
  contained: `r.state = 'contained'`,
  clean: `r.state = 'clean'`,
  written_off: `r.state = 'written_off'`,
};

/**
 * A page of the queue, in the order of ids: these never change, so what changes between two pages is neither shown twice nor
 * passed over while it fits.
 * @param within Only of these targets; null: of all.
 */
export async function listQueue(
  db: Queryable,
  filter: QueueFilter,
  within: readonly string[] | null,
  after: RevocationId | null,
  limit: number,
): Promise<QueuedRevocation[]> {
  const rows = await db.query<Row>({
    text: `${SELECT} WHERE ${STATES[filter.state ?? 'open']} AND ($1::uuid IS NULL OR r.id > $1) AND ($2::text IS NULL OR r.target = $2)
        AND ($3::text IS NULL OR g.ended_by = $3) AND ($4::uuid IS NULL OR g.task_id = $4) AND ($5::uuid IS NULL OR r.grant_id = $5)
        AND ($6::boolean IS NULL OR (r.overdue_at IS NOT NULL AND r.state IN ('due', 'running')) = $6) AND ($7::timestamptz IS NULL OR r.due_at >= $7)
        AND ($8::text[] IS NULL OR r.target = ANY($8)) ORDER BY r.id LIMIT $9`,
    values: [
      after,
      filter.target ?? null,
      filter.endedBy ?? null,
      filter.taskId ?? null,
      filter.grantId ?? null,
      filter.overdue ?? null,
      filter.since ?? null,
      within,
      limit,
    ],
  });
  return rows.map(toQueued);
}

export async function findQueued(db: Queryable, id: RevocationId): Promise<QueuedRevocation | undefined> {
  const rows = await db.query<Row>({ name: 'find_queued', text: `${SELECT} WHERE r.id = $1`, values: [id] });
  return rows.map(toQueued)[0];
}

/** The same, with nobody else changing it until the transaction ends. */
export async function holdQueued(tx: Transaction, id: RevocationId): Promise<QueuedRevocation | undefined> {
  const rows = await tx.query<Row>({
    text: `${SELECT} WHERE r.id = $1 FOR NO KEY UPDATE OF r`,
    values: [id],
  });
  return rows.map(toQueued)[0];
}

/** Lets one that is held and in nobody's hands be tried now. */
export async function tryNow(tx: Transaction, id: RevocationId): Promise<void> {
  await tx.query({ text: 'UPDATE mayfly.revocations SET try_at = $2 WHERE id = $1', values: [id, tx.now] });
}

/** `due → written_off`, of one that is held. */
export async function markWrittenOff(tx: Transaction, id: RevocationId, by: string, reason: string): Promise<void> {
  await tx.query({
    text: `UPDATE mayfly.revocations SET state = 'written_off', written_off_at = $2, written_off_by = $3, written_off_reason = $4 WHERE id = $1`,
    values: [id, tx.now, by, reason],
  });
}

/** Whether anything that is not over yet stands on a target, whatever the catalog says of it now. */
export async function hasOpenOn(db: Queryable, target: string): Promise<boolean> {
  const rows = await db.query({
    text: `SELECT FROM mayfly.revocations WHERE target = $1 AND state IN ('due', 'running', 'contained') LIMIT 1`,
    values: [target],
  });
  return rows.length > 0;
}

function toQueued(row: Row): QueuedRevocation {
  return {
    ...subjectOf(row),
    id: row.id,
    grantId: row.grant_id,
    grantState: row.grant_state,
    handle: row.handle,
    target: row.target,
    state: row.state,
    endedBy: row.ended_by,
    guarantee: row.guarantee,
    awaitsExpiry: row.awaits_expiry,
    deadline: row.deadline,
    dueAt: row.due_at,
    tryAt: row.try_at,
    attempts: row.attempts,
    lastError: row.last_error,
    lastErrorAt: row.last_error_at,
    overdueAt: row.overdue_at,
    holder:
      row.claimed_by === null || row.claimed_until === null
        ? null
        : { worker: row.claimed_by, since: row.claimed_at, until: row.claimed_until },
    evidence: row.evidence,
    containedAt: row.contained_at,
    cleanAt: row.clean_at,
    writtenOff:
      row.written_off_at === null
        ? null
        : { at: row.written_off_at, by: row.written_off_by ?? '', reason: row.written_off_reason ?? '' },
  };
}
