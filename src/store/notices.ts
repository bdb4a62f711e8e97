import type { EventId, GrantId, TaskId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';

/** An event that a webhook is told of. */
export interface Notice {
  readonly eventId: EventId;
  readonly type: string;
  readonly ts: Date;
  readonly agent: string;
  readonly resource: string;
  readonly cause: string;
  readonly taskId: TaskId | null;
  readonly grantId: GrantId | null;
  readonly payload: Readonly<Record<string, unknown>>;
  /** This try counted. */
  readonly attempts: number;
}

/** An event as those who tell it read it, for {@link toNotice}. */
export type NoticeRow = {
  event_id: EventId;
  type: string;
  ts: Date;
  agent: string;
  resource: string;
  cause: string;
  task_id: TaskId | null;
  grant_id: GrantId | null;
  payload: Notice['payload'];
  attempts: number;
};

export function toNotice(row: NoticeRow): Notice {
  return {
    eventId: row.event_id,
    type: row.type,
    ts: row.ts,
    agent: row.agent,
    resource: row.resource,
    cause: row.cause,
    taskId: row.task_id,
    grantId: row.grant_id,
    payload: row.payload,
    attempts: row.attempts,
  };
}

/** Takes notices whose time has come, oldest first. Whoever takes them is alone with them for `leaseSeconds`. */
export async function takeNotices(db: Queryable, leaseSeconds: number, limit: number): Promise<Notice[]> {
  const rows = await db.query<NoticeRow>({
    name: 'take_notices',
    text: `WITH ripe AS (
        SELECT event_id FROM mayfly.notices WHERE try_at <= (SELECT clock_timestamp()) ORDER BY try_at LIMIT $2 FOR UPDATE SKIP LOCKED),
      taken AS (
        UPDATE mayfly.notices n SET attempts = n.attempts + 1, try_at = clock_timestamp() + make_interval(secs => $1) FROM ripe
        WHERE n.event_id = ripe.event_id RETURNING n.event_id, n.attempts)
      SELECT t.event_id, e.type, e.ts, e.agent, e.resource, e.cause, e.task_id, e.grant_id, e.payload, t.attempts
      FROM taken t JOIN mayfly.audit_events e ON e.id = t.event_id ORDER BY e.ts, e.id`,
    values: [leaseSeconds, limit],
  });
  return rows.map(toNotice);
}

/** It was taken at the other end. */
export async function removeNotice(db: Queryable, id: EventId): Promise<void> {
  await db.query({ name: 'remove_notice', text: 'DELETE FROM mayfly.notices WHERE event_id = $1', values: [id] });
}

export async function deferNotice(db: Queryable, id: EventId, seconds: number): Promise<void> {
  await db.query({
    name: 'defer_notice',
    text: 'UPDATE mayfly.notices SET try_at = clock_timestamp() + make_interval(secs => $2) WHERE event_id = $1',
    values: [id, seconds],
  });
}

/** Gives up what nobody took in so long. The evidence stays. Answers how many. */
export async function dropOldNotices(db: Queryable, seconds: number): Promise<number> {
  const rows = await db.query<{ count: number }>({
    name: 'drop_old_notices',
    text: `WITH dropped AS (DELETE FROM mayfly.notices WHERE created_at < clock_timestamp() - make_interval(secs => $1) RETURNING 1)
      SELECT count(*)::int AS count FROM dropped`,
    values: [seconds],
  });
  return rows[0]?.count ?? 0;
}
