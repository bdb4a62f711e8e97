-- Up Migration
-- Grants whose value can not be taken back are counted, and a repeated ask is known before a pause is. Only adds.

-- Grants of each target that ended and were irrevocable: what was read may be known for ever. Kept as a number, since a count of
-- rows that are never deleted would cost more at each scrape.
CREATE TABLE mayfly.residuals (
  target text PRIMARY KEY,
  ended  bigint NOT NULL
);
-- As its owner: the runtime changes no count, and records ends from the migration on, before it is given rights anew.
CREATE FUNCTION mayfly.count_residual() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO mayfly.residuals AS r VALUES (NEW.target, CASE NEW.state WHEN 'revoked' THEN 1 ELSE 0 END)
  ON CONFLICT (target) DO UPDATE SET ended = r.ended + CASE NEW.state WHEN 'revoked' THEN 1 ELSE -1 END;
  RETURN NULL;
END $$;
-- One that is found in the target again is ended once more, and is still one.
CREATE TRIGGER grant_residual AFTER UPDATE OF state ON mayfly.grants FOR EACH ROW
  WHEN (OLD.state <> NEW.state AND 'revoked' IN (OLD.state, NEW.state) AND NEW.guarantee->>'revocation' = 'irrevocable')
  EXECUTE FUNCTION mayfly.count_residual();

-- As in 0003, but the pause is looked for last: behind the locks, so that it is judged as it is when the birth is decided, and
-- behind the Idempotency-Key, so that a repeated ask is never taken for a new one.
CREATE OR REPLACE FUNCTION mayfly.intend(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb, p_revocation jsonb, p_key jsonb,
  p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_now  timestamptz := mayfly.birth_locks(p_locks, p_wait);
  v_seen jsonb;
BEGIN
  IF v_now IS NULL THEN
    RETURN 'busy';
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
  IF EXISTS (SELECT FROM mayfly.target_controls WHERE target = p_grant->>'target' AND paused)
    AND NOT EXISTS (SELECT FROM mayfly.idempotency_keys k WHERE k.task_id = (p_key->>'task_id')::uuid AND k.key = p_key->>'key') THEN
    RETURN 'paused';
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
