-- Up Migration
-- What operators do with the queue of revocations: pause a target, write an obligation off, be told by webhook. Only adds.

-- Targets that an operator has paused, or had: `paused` says which. Nothing here is ever deleted.
CREATE TABLE mayfly.target_controls (
  target         text PRIMARY KEY,
  paused         boolean NOT NULL,
  -- Then not even deadlines are kept: what has no native expiry outlives its deadline.
  deadlines_held boolean NOT NULL,
  reason         text NOT NULL,
  changed_by     text NOT NULL,
  changed_at     timestamptz NOT NULL
);

ALTER TABLE mayfly.revocations
  ADD COLUMN claimed_at         timestamptz,
  ADD COLUMN written_off_at     timestamptz,
  ADD COLUMN written_off_by     text,
  ADD COLUMN written_off_reason text,
  -- Not looked for in what is there: nothing could write one off before.
  ADD CONSTRAINT revocations_written_off CHECK (CASE WHEN state = 'written_off'
    THEN written_off_at IS NOT NULL AND written_off_by IS NOT NULL AND written_off_reason IS NOT NULL ELSE written_off_at IS NULL END) NOT VALID;
-- What operators look at: by id, since that never changes and so a page never loses its place.
CREATE INDEX revocations_open ON mayfly.revocations (id) WHERE state IN ('due', 'running', 'contained', 'written_off');

-- Events that a webhook is told of, until it took them. Born with the evidence, in its transaction, whoever writes that.
CREATE TABLE mayfly.notices (
  event_id   uuid PRIMARY KEY REFERENCES mayfly.audit_events,
  created_at timestamptz NOT NULL,
  try_at     timestamptz NOT NULL,
  attempts   integer NOT NULL DEFAULT 0
);
CREATE INDEX notices_by_try ON mayfly.notices (try_at);

CREATE FUNCTION mayfly.notice_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- Of what was contained only what had been cried about before is news.
  IF NEW.type <> 'revocation.contained'
    OR EXISTS (SELECT FROM mayfly.revocations r WHERE r.grant_id = NEW.grant_id AND r.overdue_at IS NOT NULL) THEN
    INSERT INTO mayfly.notices (event_id, created_at, try_at) VALUES (NEW.id, clock_timestamp(), clock_timestamp());
  END IF;
  RETURN NULL;
END $$;
-- The objective is longer than a second (src/config.ts), so that what was contained sooner need not be looked up.
CREATE TRIGGER audit_event_noticed AFTER INSERT ON mayfly.audit_events FOR EACH ROW
  WHEN (NEW.type IN ('revocation.overdue', 'revocation.written_off', 'target.paused', 'target.resumed', 'target.breaker')
    OR (NEW.type = 'revocation.contained' AND (NEW.payload->>'late_seconds')::float8 > 1))
  EXECUTE FUNCTION mayfly.notice_event();

-- As in 0002, and 'paused' for a target that an operator has paused: ends are held back there, so that no credential may begin.
CREATE OR REPLACE FUNCTION mayfly.intend(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb, p_revocation jsonb, p_key jsonb,
  p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_now  timestamptz := mayfly.birth_locks(p_locks, p_wait);
  v_seen jsonb;
BEGIN
  IF v_now IS NULL THEN
    RETURN 'busy';
  END IF;
  IF EXISTS (SELECT FROM mayfly.target_controls WHERE target = p_grant->>'target' AND paused) THEN
    RETURN 'paused';
  END IF;
  -- Births of one tree one after another: the tree's own lock is shared among them, and each changes what the next is decided on.
  IF p_wait THEN
    PERFORM pg_advisory_xact_lock(p_locks[5], p_locks[4]);
  ELSIF NOT pg_try_advisory_xact_lock(p_locks[5], p_locks[4]) THEN
    RETURN 'busy';
  END IF;
  SELECT mayfly.seen(t) INTO v_seen FROM mayfly.tasks t
  WHERE t.id = (p_grant->>'task_id')::uuid AND t.state = 'active' AND t.not_after > v_now AND (p_grant->>'deadline')::timestamptz > v_now;
  IF v_seen IS DISTINCT FROM p_seen THEN
    RETURN 'changed';
  END IF;
  IF p_key IS NOT NULL THEN
    INSERT INTO mayfly.idempotency_keys SELECT * FROM jsonb_populate_record(NULL::mayfly.idempotency_keys, p_key) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN 'key_used';
    END IF;
  END IF;
  INSERT INTO mayfly.decisions SELECT * FROM jsonb_populate_record(NULL::mayfly.decisions, p_decision);
  INSERT INTO mayfly.grants SELECT * FROM jsonb_populate_record(NULL::mayfly.grants, p_grant);
  INSERT INTO mayfly.revocations SELECT * FROM jsonb_populate_record(NULL::mayfly.revocations, p_revocation);
  INSERT INTO mayfly.audit_events SELECT * FROM jsonb_populate_recordset(NULL::mayfly.audit_events, p_events);
  RETURN 'done';
END $$;

-- Each migration adds the rights to what it made, and calls the one before.
ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_0003;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_0003(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE ON mayfly.target_controls TO %I', runtime);
  EXECUTE format('GRANT UPDATE (claimed_at, written_off_at, written_off_by, written_off_reason) ON mayfly.revocations TO %I', runtime);
  -- An outbox, no history: that is in audit_events.
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON mayfly.notices TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
