import type { Queryable, Transaction } from './database.ts';

/** A webhook as the trigger on the evidence reads it. */
export interface DeclaredWebhook {
  readonly name: string;
  readonly types: readonly string[];
  /** What stands before the dot of a type. */
  readonly families: readonly string[];
  /** Null: whatever it is about. */
  readonly targets: readonly string[] | null;
}

/** How one fares. */
export interface WebhookState {
  readonly name: string;
  readonly disabledAt: Date | null;
  readonly holdUntil: Date | null;
  readonly failingSince: Date | null;
  readonly lastSuccessAt: Date | null;
  readonly lastError: string | null;
  readonly lastErrorAt: Date | null;
  readonly pending: number;
  readonly oldestPendingAt: Date | null;
  /** Of the last days: older ones are forgotten. */
  readonly givenUp: number;
  readonly failingSeconds: number;
}

/**
 * Makes these the webhooks that are told of news from this transaction's commit on. Whatever was wrong with one is tried anew. The
 * catalog's exclusive lock must be held.
 */
export async function declareWebhooks(
  tx: Transaction,
  revision: number,
  webhooks: readonly DeclaredWebhook[],
): Promise<void> {
  await tx.query({
    text: `INSERT INTO mayfly.webhooks (name, types, families, targets, revision, declared)
      SELECT w.name, w.types, w.families, w.targets, $2, true
      FROM jsonb_to_recordset($1) w (name text, types text[], families text[], targets text[])
      ON CONFLICT (name) DO UPDATE SET types = EXCLUDED.types, families = EXCLUDED.families, targets = EXCLUDED.targets,
        revision = EXCLUDED.revision, declared = true, disabled_at = NULL, hold_until = NULL, failures = 0`,
    values: [JSON.stringify(webhooks), revision],
  });
  await tx.query({
    text: 'UPDATE mayfly.webhooks SET declared = false WHERE declared AND revision <> $1',
    values: [revision],
  });
}

/** The declared ones, by name. */
export async function listWebhookStates(db: Queryable): Promise<WebhookState[]> {
  const rows = await db.query<{
    name: string;
    disabled_at: Date | null;
    hold_until: Date | null;
    failing_since: Date | null;
    last_success_at: Date | null;
    last_error: string | null;
    last_error_at: Date | null;
    pending: number;
    oldest_pending_at: Date | null;
    given_up: number;
    failing_seconds: number;
  }>({
    name: 'list_webhook_states',
    text: `SELECT w.name, w.disabled_at, w.hold_until, w.failing_since, w.last_success_at, w.last_error, w.last_error_at,
        p.pending, p.oldest_pending_at, g.given_up,
        coalesce(extract(epoch FROM clock_timestamp() - coalesce(w.disabled_at, w.failing_since)), 0)::float8 AS failing_seconds
      FROM mayfly.webhooks w
      CROSS JOIN LATERAL (SELECT count(*)::int AS pending, min(d.created_at) AS oldest_pending_at FROM mayfly.webhook_deliveries d
        WHERE d.webhook = w.name AND d.delivered_at IS NULL AND d.given_up_at IS NULL) p
      CROSS JOIN LATERAL (SELECT count(*)::int AS given_up FROM mayfly.webhook_deliveries d
        WHERE d.webhook = w.name AND d.given_up_at IS NOT NULL) g
      WHERE w.declared ORDER BY w.name`,
    values: [],
  });
  return rows.map((row) => ({
    name: row.name,
    disabledAt: row.disabled_at,
    holdUntil: row.hold_until,
    failingSince: row.failing_since,
    lastSuccessAt: row.last_success_at,
    lastError: row.last_error,
    lastErrorAt: row.last_error_at,
    pending: row.pending,
    oldestPendingAt: row.oldest_pending_at,
    givenUp: row.given_up,
    failingSeconds: row.failing_seconds,
  }));
}

/** Which of these have something to be told now, and may be told. With how often each failed in a row. */
export async function webhooksToTell(db: Queryable, names: readonly string[]): Promise<ReadonlyMap<string, number>> {
  const rows = await db.query<{ name: string; failures: number }>({
    name: 'webhooks_to_tell',
    text: `SELECT w.name, w.failures FROM mayfly.webhooks w
      WHERE w.name = ANY ($1) AND w.declared AND w.disabled_at IS NULL AND (w.hold_until IS NULL OR w.hold_until <= clock_timestamp())
        AND EXISTS (SELECT FROM mayfly.webhook_deliveries d WHERE d.webhook = w.name AND d.delivered_at IS NULL
          AND d.given_up_at IS NULL AND d.try_at <= (SELECT clock_timestamp()))`,
    values: [names],
  });
  return new Map(rows.map(({ name, failures }) => [name, failures]));
}

/** It wants no more: nothing is told until another revision is applied. */
export async function disableWebhook(db: Queryable, name: string, error: string): Promise<void> {
  await db.query({
    text: `UPDATE mayfly.webhooks SET disabled_at = coalesce(disabled_at, clock_timestamp()), last_error = $2,
        last_error_at = clock_timestamp() WHERE name = $1`,
    values: [name, error],
  });
}
