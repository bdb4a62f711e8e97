-- Up Migration
-- Kills: an operator's word that stops an agent, a task, an issuer, an entitlement, a target or all, until it is lifted.

-- Nothing here is ever deleted.
CREATE TABLE mayfly.kills (
  id             uuid PRIMARY KEY,
  scope          text NOT NULL CHECK (scope IN ('agent', 'task', 'issuer', 'entitlement', 'target', 'all')),
  -- As the wire names it: `<source>:<subject>`, `task_…`, the issuer's URL as tasks bear it, an entitlement, a target. '' for all.
  subject        text NOT NULL CHECK ((scope = 'all') = (subject = '')),
  -- The targets that an operator must have in scope to see it or lift it. Null: only one whose role holds everywhere.
  targets        text[],
  reason         text NOT NULL,
  raised_by      text NOT NULL,
  created_at     timestamptz NOT NULL,
  tasks_ended    integer NOT NULL,
  grants_ended   integer NOT NULL,
  -- Revocations of grants that had ended before, and were not contained.
  hastened       integer NOT NULL,
  lifted_at      timestamptz,
  lifted_by      text,
  lift_reason    text,
  CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
-- What every birth looks into. One kill stands for one thing.
CREATE UNIQUE INDEX kills_standing ON mayfly.kills (scope, subject) WHERE lifted_at IS NULL;

-- Whether a kill stands that names one of these. Null is named by none. As its owner: brokers that run while the store is migrated ask
-- it before they are given rights anew.
CREATE FUNCTION mayfly.is_killed(p_agent text, p_issuer text, p_task text, p_entitlement text, p_target text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM mayfly.kills k WHERE k.lifted_at IS NULL AND (k.scope, k.subject) IN (('all', ''), ('agent', p_agent),
    ('issuer', p_issuer), ('task', p_task), ('entitlement', p_entitlement), ('target', p_target)))
$$;

-- Whether a kill of that scope names the task itself.
CREATE FUNCTION mayfly.kill_names(p_scope text, p_subject text, t mayfly.tasks) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT CASE p_scope WHEN 'agent' THEN t.workload_source || ':' || t.workload_subject = p_subject WHEN 'issuer' THEN t.issuer = p_subject
    WHEN 'task' THEN 'task_' || t.id = p_subject ELSE p_scope = 'all' END
$$;

-- Or one that it hangs on.
CREATE FUNCTION mayfly.kill_covers(p_scope text, p_subject text, t mayfly.tasks) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT mayfly.kill_names(p_scope, p_subject, t) OR (t.parent_id IS NOT NULL AND EXISTS (
    WITH RECURSIVE above AS (
      SELECT p.* FROM mayfly.tasks p WHERE p.id = t.parent_id
      UNION ALL SELECT p.* FROM above a JOIN mayfly.tasks p ON p.id = a.parent_id)
    SELECT FROM above a JOIN mayfly.tasks p ON p.id = a.id WHERE mayfly.kill_names(p_scope, p_subject, p)))
$$;

-- Since when a kill wants it: then no pause of its target holds it back.
ALTER TABLE mayfly.revocations ADD COLUMN urgent_at timestamptz;

-- As in 0005, and 'killed': behind the same locks, and with what the decision was made on, so that a task which a kill has ended is
-- `changed` first, and told by its own state.
CREATE OR REPLACE FUNCTION mayfly.intend_where_reconciled(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb,
  p_revocation jsonb, p_key jsonb, p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  v_now    timestamptz := mayfly.birth_locks(p_locks, p_wait);
  v_seen   jsonb;
  v_killed boolean;
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
  SELECT mayfly.seen(t), mayfly.is_killed(t.workload_source || ':' || t.workload_subject, t.issuer, 'task_' || t.id, p_grant->>'entitlement',
    p_grant->>'target') INTO v_seen, v_killed FROM mayfly.tasks t
  WHERE t.id = (p_grant->>'task_id')::uuid AND t.state = 'active' AND t.not_after > v_now AND (p_grant->>'deadline')::timestamptz > v_now;
  IF v_seen IS DISTINCT FROM p_seen THEN
    RETURN 'changed';
  END IF;
  IF v_killed THEN
    RETURN 'killed';
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

CREATE TRIGGER audit_event_killed AFTER INSERT ON mayfly.audit_events FOR EACH ROW
  WHEN (NEW.type IN ('kill.raised', 'kill.lifted')) EXECUTE FUNCTION mayfly.notice_event();

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_kill;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_kill(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE (lifted_at, lifted_by, lift_reason) ON mayfly.kills TO %I', runtime);
  EXECUTE format('GRANT UPDATE (urgent_at) ON mayfly.revocations TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
