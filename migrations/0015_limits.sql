-- Up Migration
-- Limits on grants that are not yet contained, beyond one tree.

-- Whose it is, `<source>:<subject>`: counted without a look at each task.
ALTER TABLE mayfly.grants ADD COLUMN workload text;
UPDATE mayfly.grants g SET workload = t.workload_source || ':' || t.workload_subject FROM mayfly.tasks t
  WHERE t.id = g.task_id AND g.state IN ('minting', 'active', 'revoking');
CREATE INDEX grants_uncontained_of_workload ON mayfly.grants (workload) WHERE state IN ('minting', 'active', 'revoking');
CREATE INDEX grants_uncontained_of_target ON mayfly.grants (target) WHERE state IN ('minting', 'active', 'revoking');

-- Made for one call: it lives a minute at most, holds one connection, and is not renewed.
ALTER TABLE mayfly.grants ADD COLUMN per_call boolean NOT NULL DEFAULT false;

-- The name of a limit that leaves no room for this grant; null: all do. Whoever counts for one limit does so alone, until its commit.
-- '*', which is no name: somebody else does, and it may not wait. These are the last locks that a birth takes, in the order of their names.
CREATE FUNCTION mayfly.reached_limit(p_grant jsonb, p_workload text, p_wait boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  l       jsonb;
  v_key   integer;
  v_count bigint;
BEGIN
  FOR l IN SELECT value FROM jsonb_array_elements(p_grant->'limits') ORDER BY value->>'name' LOOP
    v_key := hashtext(concat_ws(' ', l->>'name', l->>'per', CASE l->>'per' WHEN 'workload' THEN p_workload ELSE p_grant->>'target' END));
    IF p_wait THEN
      PERFORM pg_advisory_xact_lock(1296433157, v_key);
    ELSIF NOT pg_try_advisory_xact_lock(1296433157, v_key) THEN
      RETURN '*';
    END IF;
  END LOOP;
  FOR l IN SELECT value FROM jsonb_array_elements(p_grant->'limits') LOOP
    IF l->>'per' = 'workload' THEN
      SELECT count(*) INTO v_count FROM mayfly.grants g
      WHERE g.workload = p_workload AND g.state IN ('minting', 'active', 'revoking') AND (l->'of' = 'null' OR l->'of' ? g.entitlement);
    ELSE
      SELECT count(*) INTO v_count FROM mayfly.grants g
      WHERE g.target = p_grant->>'target' AND g.state IN ('minting', 'active', 'revoking') AND (l->'of' = 'null' OR l->'of' ? g.entitlement);
    END IF;
    IF v_count >= (l->>'grants')::bigint THEN
      RETURN l->>'name';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

-- As in 0005, and 'killed', 'limited:<name>'; the grant bears its workload. `p_seen` is the fingerprint of what the decision was made on (of a
-- broker of before: `mayfly.seen`). A task that a kill has ended is 'changed' first, and told by its own state.
CREATE OR REPLACE FUNCTION mayfly.intend_where_reconciled(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb,
  p_revocation jsonb, p_key jsonb, p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_now     timestamptz := mayfly.birth_locks(p_locks, p_wait);
  v_task    record;
  v_reached text;
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
  SELECT s.workload, s.fingerprint, s.killed OR EXISTS (SELECT FROM mayfly.kills k WHERE k.lifted_at IS NULL
    AND (k.scope, k.subject) IN (('entitlement', p_grant->>'entitlement'), ('target', p_grant->>'target'))) AS killed INTO v_task
  FROM mayfly.task_states s
  WHERE s.id = (p_grant->>'task_id')::uuid AND s.state = 'active' AND s.not_after > v_now AND (p_grant->>'deadline')::timestamptz > v_now;
  IF NOT FOUND THEN
    RETURN 'changed';
  ELSIF jsonb_typeof(p_seen) = 'string' THEN
    IF v_task.fingerprint <> p_seen #>> '{}' THEN
      RETURN 'changed';
    END IF;
  ELSIF (SELECT mayfly.seen(t) FROM mayfly.tasks t WHERE t.id = (p_grant->>'task_id')::uuid) IS DISTINCT FROM p_seen THEN
    RETURN 'changed';
  END IF;
  IF v_task.killed THEN
    RETURN 'killed';
  END IF;
  IF EXISTS (SELECT FROM mayfly.target_controls WHERE target = p_grant->>'target' AND paused)
    AND NOT EXISTS (SELECT FROM mayfly.idempotency_keys k WHERE k.task_id = (p_key->>'task_id')::uuid AND k.key = p_key->>'key') THEN
    RETURN 'paused';
  END IF;
  IF jsonb_array_length(p_grant->'limits') > 0 THEN
    v_reached := mayfly.reached_limit(p_grant, v_task.workload, p_wait);
    IF v_reached = '*' THEN
      RETURN 'busy';
    ELSIF v_reached IS NOT NULL THEN
      RETURN 'limited:' || v_reached;
    END IF;
  END IF;
  IF p_key IS NOT NULL THEN
    INSERT INTO mayfly.idempotency_keys SELECT * FROM jsonb_populate_record(NULL::mayfly.idempotency_keys, p_key) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN 'key_used';
    END IF;
  END IF;
  INSERT INTO mayfly.decisions SELECT * FROM jsonb_populate_record(NULL::mayfly.decisions, p_decision);
  INSERT INTO mayfly.grants SELECT * FROM jsonb_populate_record(NULL::mayfly.grants,
    '{"per_call": false}' || p_grant || jsonb_build_object('workload', v_task.workload));
  INSERT INTO mayfly.revocations SELECT * FROM jsonb_populate_record(NULL::mayfly.revocations, p_revocation);
  INSERT INTO mayfly.audit_events SELECT * FROM jsonb_populate_recordset(NULL::mayfly.audit_events, p_events);
  RETURN 'done';
END $$;
