-- Up Migration
-- Webhooks that the catalog declares, and what each is still to be told.

-- As the last revision declared them, and how they fare. A name that left the catalog goes once nothing of it is left.
CREATE TABLE mayfly.webhooks (
  name            text PRIMARY KEY,
  -- Types of events, and families of them: what stands before the dot.
  types           text[] NOT NULL,
  families        text[] NOT NULL,
  -- Only what is about one of these. Null: whatever it is about.
  targets         text[],
  revision        bigint NOT NULL,
  declared        boolean NOT NULL,
  -- It answered 410: told nothing more until another revision is applied.
  disabled_at     timestamptz,
  -- Told nothing before: it failed, or said so.
  hold_until      timestamptz,
  -- In a row.
  failures        integer NOT NULL DEFAULT 0,
  failing_since   timestamptz,
  last_success_at timestamptz,
  last_error      text,
  last_error_at   timestamptz
);

-- One event for one webhook. Born with the evidence, in its transaction, whoever writes that.
CREATE TABLE mayfly.webhook_deliveries (
  webhook      text NOT NULL,
  -- Of audit_events, where nothing is ever deleted: a foreign key would look that up once more for each row.
  event_id     uuid NOT NULL,
  -- As it is told: what is contained late is news, what is contained is not.
  type         text NOT NULL,
  created_at   timestamptz NOT NULL,
  -- The next try, or when whoever tries it now is held for dead.
  try_at       timestamptz NOT NULL,
  attempts     integer NOT NULL DEFAULT 0,
  last_error   text,
  delivered_at timestamptz,
  given_up_at  timestamptz,
  PRIMARY KEY (webhook, event_id),
  CHECK (delivered_at IS NULL OR given_up_at IS NULL)
);
CREATE INDEX webhook_deliveries_pending ON mayfly.webhook_deliveries (webhook, try_at) WHERE delivered_at IS NULL AND given_up_at IS NULL;
CREATE INDEX webhook_deliveries_over ON mayfly.webhook_deliveries (coalesce(delivered_at, given_up_at))
  WHERE delivered_at IS NOT NULL OR given_up_at IS NOT NULL;
CREATE INDEX webhook_deliveries_given_up ON mayfly.webhook_deliveries (webhook) WHERE given_up_at IS NOT NULL;
CREATE INDEX webhook_deliveries_tests ON mayfly.webhook_deliveries (webhook) WHERE type = 'webhook.test';

-- As its owner: brokers that run while the store is migrated write evidence before they are given rights anew. Once for all evidence of a
-- statement: a kill writes that of thousands in one, and must not run out of time for want of who is told of it.
CREATE FUNCTION mayfly.tell_webhooks() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM mayfly.webhooks WHERE declared) THEN
    RETURN NULL;
  END IF;
  INSERT INTO mayfly.webhook_deliveries (webhook, event_id, type, created_at, try_at)
  SELECT w.name, n.id, n.type, clock_timestamp(), CASE n.type WHEN 'webhook.test' THEN '-infinity' ELSE clock_timestamp() END
  FROM (
    SELECT e.id, e.resource, coalesce(e.payload->>'target', split_part(e.resource, '/', 1)) AS target,
      CASE e.type WHEN 'webhook.tested' THEN 'webhook.test' WHEN 'revocation.contained' THEN 'revocation.contained_late' ELSE e.type END AS type
    FROM written e
    WHERE CASE
      WHEN e.type = 'grant.ended' THEN e.cause IN ('drift', 'signal', 'operator', 'orphaned')
      -- Of what was contained only what had been cried about before is news.
      WHEN e.type = 'revocation.contained' THEN CASE WHEN (e.payload->>'late_seconds')::float8 > 1
        THEN EXISTS (SELECT FROM mayfly.revocations r WHERE r.grant_id = e.grant_id AND r.overdue_at IS NOT NULL) END
      -- What the ordinary life of a task and its grants leaves is nobody's news. A test holds this list against src/domain/news.ts.
      ELSE e.type NOT IN ('task.opened', 'task.replayed', 'task.offered', 'task.claimed', 'task.moved', 'task.completed', 'task.cancelled',
        'task.expired', 'decision.made', 'grant.intended', 'grant.activated', 'grant.renewed', 'grant.used', 'grant.ended', 'use.evaluated',
        'revocation.attempted', 'revocation.contained', 'revocation.clean') END
  ) n JOIN mayfly.webhooks w ON w.declared AND CASE n.type WHEN 'webhook.test' THEN w.name = n.resource
    ELSE (n.type = ANY (w.types) OR split_part(n.type, '.', 1) = ANY (w.families)) AND (w.targets IS NULL OR n.target = ANY (w.targets)) END;
  IF FOUND THEN
    -- An operator who tests wants to know now: before all else that waits, and whatever it failed before.
    UPDATE mayfly.webhooks w SET hold_until = NULL FROM written e WHERE e.type = 'webhook.tested' AND w.name = e.resource;
  END IF;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.tell_webhooks() FROM PUBLIC;

CREATE TRIGGER audit_event_told AFTER INSERT ON mayfly.audit_events REFERENCING NEW TABLE AS written FOR EACH STATEMENT
  EXECUTE FUNCTION mayfly.tell_webhooks();

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_0020;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_0020(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON mayfly.webhooks TO %I', runtime);
  EXECUTE format('GRANT INSERT, DELETE, UPDATE (try_at, attempts, last_error, delivered_at, given_up_at) ON mayfly.webhook_deliveries TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
