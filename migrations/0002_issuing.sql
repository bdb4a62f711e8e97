-- Up Migration
-- The two transactions of issuing, one round trip each: on the issuing path the round trips are what costs. Measured at
-- concurrency 16 on two cores: 126 grants/s with a transaction of single statements, see test/bench/mint.ts for what it is now.
-- Order of locks as everywhere (src/store/locks.ts): kill epoch, catalog revision, root of the tree; then the clock; then the checks.

-- Holds what a birth holds, and answers the clock after that. Null when it may not wait and the tree is held alone by another.
CREATE FUNCTION mayfly.birth_locks(p_locks integer[], p_wait boolean) RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(p_locks[1], 0);
  PERFORM pg_advisory_xact_lock_shared(p_locks[2], 0);
  IF p_wait THEN
    PERFORM pg_advisory_xact_lock_shared(p_locks[3], p_locks[4]);
  ELSIF NOT pg_try_advisory_xact_lock_shared(p_locks[3], p_locks[4]) THEN
    RETURN NULL;
  END IF;
  RETURN clock_timestamp();
END $$;

-- Commits the intent: decision, grant, obligation, evidence. The decision was made on what was read before, so all of that is
-- looked at again under the locks. Answers 'done'; 'changed' when it is no longer so, to be read and decided again; 'key_used'
-- when the Idempotency-Key stands for another grant; 'busy' when it may not wait for the tree. Then nothing was written.
CREATE FUNCTION mayfly.intend(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb, p_revocation jsonb, p_key jsonb, p_events jsonb)
RETURNS text LANGUAGE plpgsql AS $$
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

-- What a decision depends on, besides what never changes for a task.
CREATE FUNCTION mayfly.seen(t mayfly.tasks) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('state', t.state, 'phase', t.phase, 'revision', (SELECT revision FROM mayfly.catalog_active),
    'live_grants', count(*), 'sensitive_sinks', count(*) FILTER (WHERE g.sink))
  FROM mayfly.grants g WHERE g.root_id = t.root_id AND g.state IN ('minting', 'active', 'revoking')
$$;

-- minting → active, only while the task is alive; the obligation moves to the grant's deadline. 'ended' when the grant was ended
-- meanwhile: then only the facts are kept, for whoever ends it.
CREATE FUNCTION mayfly.activate(p_locks integer[], p_wait boolean, p_grant uuid, p_facts jsonb, p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_now      timestamptz := mayfly.birth_locks(p_locks, p_wait);
  v_deadline timestamptz;
BEGIN
  IF v_now IS NULL THEN
    RETURN 'busy';
  END IF;
  UPDATE mayfly.grants g SET state = 'active', facts = p_facts, activated_at = v_now FROM mayfly.tasks t
  WHERE g.id = p_grant AND g.state = 'minting' AND t.id = g.task_id AND t.state = 'active' AND t.not_after > v_now AND g.deadline > v_now
  RETURNING g.deadline INTO v_deadline;
  IF NOT FOUND THEN
    UPDATE mayfly.grants SET facts = p_facts WHERE id = p_grant AND facts IS NULL;
    RETURN 'ended';
  END IF;
  UPDATE mayfly.revocations SET due_at = v_deadline, try_at = v_deadline WHERE grant_id = p_grant AND state = 'scheduled';
  INSERT INTO mayfly.audit_events SELECT * FROM jsonb_populate_recordset(NULL::mayfly.audit_events, p_events);
  RETURN 'done';
END $$;

-- Many at once: under load the round trip and the commit are shared by whoever asks at the same moment. Each item is a
-- transaction of its own to the others: what one breaks is undone and reported for that one alone, as its SQLSTATE. With others
-- none waits for a tree that is held alone: it is 'busy', and asked again by itself.
CREATE FUNCTION mayfly.intend_all(p_items jsonb, p_wait boolean) RETURNS TABLE (outcome text) LANGUAGE plpgsql AS $$
DECLARE
  i jsonb;
BEGIN
  FOR i IN SELECT value FROM jsonb_array_elements(p_items) LOOP
    BEGIN
      outcome := mayfly.intend(ARRAY(SELECT jsonb_array_elements_text(i->'locks')::integer), p_wait, i->'seen', i->'decision', i->'grant', i->'revocation',
        nullif(i->'key', 'null'), i->'events');
    EXCEPTION WHEN OTHERS THEN
      outcome := SQLSTATE;
    END;
    RETURN NEXT;
  END LOOP;
END $$;

CREATE FUNCTION mayfly.activate_all(p_items jsonb, p_wait boolean) RETURNS TABLE (outcome text) LANGUAGE plpgsql AS $$
DECLARE
  i jsonb;
BEGIN
  FOR i IN SELECT value FROM jsonb_array_elements(p_items) LOOP
    BEGIN
      outcome := mayfly.activate(ARRAY(SELECT jsonb_array_elements_text(i->'locks')::integer), p_wait, (i->>'grant')::uuid, i->'facts', i->'events');
    EXCEPTION WHEN OTHERS THEN
      outcome := SQLSTATE;
    END;
    RETURN NEXT;
  END LOOP;
END $$;
