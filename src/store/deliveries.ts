import type { EventId } from '../domain/ids.ts';
import type { Queryable } from './database.ts';
import { type Notice, type NoticeRow, toNotice } from './notices.ts';

/** Where a test stands. */
export interface TestDelivery {
  readonly eventId: EventId;
  readonly state: 'pending' | 'delivered' | 'given_up';
  readonly attempts: number;
  readonly lastError: string | null;
}

/**
 * Takes what one webhook is to be told now, oldest first. Whoever takes it is alone with it for `leaseSeconds`; killed with it, another
 * takes it then.
 */
export async function takeDeliveries(
  db: Queryable,
  webhook: string,
  leaseSeconds: number,
  limit: number,
): Promise<Notice[]> {
  const rows = await db.query<NoticeRow>({
    name: 'take_deliveries',
    text: `WITH ripe AS (
        SELECT webhook, event_id FROM mayfly.webhook_deliveries WHERE webhook = $1 AND delivered_at IS NULL AND given_up_at IS NULL
          AND try_at <= (SELECT clock_timestamp()) ORDER BY try_at LIMIT $3 FOR UPDATE SKIP LOCKED),
      taken AS (
        UPDATE mayfly.webhook_deliveries d SET attempts = d.attempts + 1, try_at = clock_timestamp() + make_interval(secs => $2)
        FROM ripe WHERE d.webhook = ripe.webhook AND d.event_id = ripe.event_id RETURNING d.event_id, d.type, d.attempts)
      SELECT t.event_id, t.type, e.ts, e.agent, e.resource, e.cause, e.task_id, e.grant_id, e.payload, t.attempts
      FROM taken t JOIN mayfly.audit_events e ON e.id = t.event_id ORDER BY e.ts, e.id`,
    values: [webhook, leaseSeconds, limit],
  });
  return rows.map(toNotice);
}

/** It was taken at the other end; whoever took the delivery meanwhile need not tell it again. */
export async function markDelivered(db: Queryable, webhook: string, id: EventId): Promise<void> {
  await db.query({
    name: 'mark_delivered',
    text: `WITH done AS (UPDATE mayfly.webhook_deliveries SET delivered_at = clock_timestamp(), last_error = NULL
        WHERE webhook = $1 AND event_id = $2 AND delivered_at IS NULL AND given_up_at IS NULL)
      UPDATE mayfly.webhooks SET failures = 0, failing_since = NULL, last_success_at = clock_timestamp() WHERE name = $1`,
    values: [webhook, id],
  });
}

/** How long to wait, and why. */
export interface NotTaken {
  readonly error: string;
  /** Until this delivery is tried again. */
  readonly retrySeconds: number;
  /** Until the webhook is told anything. */
  readonly holdSeconds: number;
  /** In a row, this one counted. */
  readonly failures: number;
}

export async function markNotTaken(
  db: Queryable,
  webhook: string,
  { eventId, attempts }: Pick<Notice, 'eventId' | 'attempts'>,
  { error, retrySeconds, holdSeconds, failures }: NotTaken,
): Promise<void> {
  await db.query({
    name: 'mark_not_taken',
    // One that another replica has in hand by now is that one's.
    text: `WITH deferred AS (UPDATE mayfly.webhook_deliveries
        SET try_at = clock_timestamp() + make_interval(secs => $4), last_error = $3
        WHERE webhook = $1 AND event_id = $2 AND attempts = $7 AND delivered_at IS NULL AND given_up_at IS NULL)
      UPDATE mayfly.webhooks SET failures = greatest(failures, $6), failing_since = coalesce(failing_since, clock_timestamp()),
        hold_until = greatest(hold_until, clock_timestamp() + make_interval(secs => $5)), last_error = $3,
        last_error_at = clock_timestamp()
      WHERE name = $1`,
    values: [webhook, eventId, error, retrySeconds, holdSeconds, failures, attempts],
  });
}

/**
 * Gives up what nobody took in so long, and what is for webhooks that left the catalog: at most `limit`. Answers how many of each.
 * Another replica does the same at the same time; each takes what the other has not in hand.
 */
export async function giveUpDeliveries(
  db: Queryable,
  seconds: number,
  limit: number,
): Promise<ReadonlyMap<string, number>> {
  const rows = await db.query<{ webhook: string; count: number }>({
    name: 'give_up_deliveries',
    text: `WITH late AS (
        SELECT d.webhook, d.event_id FROM mayfly.webhook_deliveries d
        WHERE d.delivered_at IS NULL AND d.given_up_at IS NULL AND (d.created_at < clock_timestamp() - make_interval(secs => $1)
          OR NOT EXISTS (SELECT FROM mayfly.webhooks w WHERE w.name = d.webhook AND w.declared))
        LIMIT $2 FOR UPDATE OF d SKIP LOCKED),
      given_up AS (
        UPDATE mayfly.webhook_deliveries d SET given_up_at = clock_timestamp() FROM late
        WHERE d.webhook = late.webhook AND d.event_id = late.event_id RETURNING d.webhook)
      SELECT webhook, count(*)::int AS count FROM given_up GROUP BY webhook`,
    values: [seconds, limit],
  });
  return new Map(rows.map(({ webhook, count }) => [webhook, count]));
}

/**
 * Forgets what is over, at most `limit` at once: delivered for a while, or given up for long; and webhooks that left, with the last of
 * theirs. Answers how many deliveries.
 */
export async function forgetDeliveries(
  db: Queryable,
  deliveredSeconds: number,
  givenUpSeconds: number,
  limit: number,
): Promise<number> {
  const rows = await db.query<{ count: number }>({
    name: 'forget_deliveries',
    text: `WITH done AS (
        SELECT webhook, event_id FROM mayfly.webhook_deliveries
        WHERE coalesce(delivered_at, given_up_at) < clock_timestamp() - make_interval(secs => least($1::float8, $2::float8))
          AND (delivered_at < clock_timestamp() - make_interval(secs => $1::float8) OR given_up_at < clock_timestamp() - make_interval(secs => $2::float8))
        LIMIT $3 FOR UPDATE SKIP LOCKED),
      forgotten AS (
        DELETE FROM mayfly.webhook_deliveries d USING done WHERE d.webhook = done.webhook AND d.event_id = done.event_id RETURNING 1),
      left_behind AS (
        DELETE FROM mayfly.webhooks w WHERE NOT w.declared
          AND NOT EXISTS (SELECT FROM mayfly.webhook_deliveries d WHERE d.webhook = w.name))
      SELECT count(*)::int AS count FROM forgotten`,
    values: [deliveredSeconds, givenUpSeconds, limit],
  });
  return rows[0]?.count ?? 0;
}

/** Where the test of that name stands. */
export async function findTest(db: Queryable, webhook: string, test: string): Promise<TestDelivery | undefined> {
  const rows = await db.query<{
    event_id: EventId;
    attempts: number;
    last_error: string | null;
    delivered_at: Date | null;
    given_up_at: Date | null;
  }>({
    text: `SELECT d.event_id, d.attempts, d.last_error, d.delivered_at, d.given_up_at FROM mayfly.webhook_deliveries d
      JOIN mayfly.audit_events e ON e.id = d.event_id WHERE d.webhook = $1 AND d.type = 'webhook.test' AND e.payload->>'test' = $2`,
    values: [webhook, test],
  });
  return rows.map(
    ({ event_id: eventId, attempts, last_error: lastError, delivered_at: delivered, given_up_at: over }) => ({
      ...{ eventId, attempts, lastError },
      state: delivered !== null ? ('delivered' as const) : over !== null ? ('given_up' as const) : ('pending' as const),
    }),
  )[0];
}
