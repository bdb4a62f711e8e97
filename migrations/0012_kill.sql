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

CREATE TRIGGER audit_event_killed AFTER INSERT ON mayfly.audit_events FOR EACH ROW
  WHEN (NEW.type IN ('kill.raised', 'kill.lifted', 'kill.confirmed')) EXECUTE FUNCTION mayfly.notice_event();

-- A store that forgot its last moments may have forgotten a kill. Nothing is issued before the kills are confirmed: by a replica that knew them
-- before and has raised again what is missing, or by an operator.
ALTER TABLE mayfly.timeline ADD COLUMN kills_confirmed boolean NOT NULL DEFAULT true;
CREATE FUNCTION mayfly.unconfirm_kills() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.kills_confirmed := false;
  RETURN NEW;
END $$;
CREATE TRIGGER kills_unconfirmed BEFORE UPDATE OF changed_at ON mayfly.timeline FOR EACH ROW
  WHEN (NEW.changed_at IS DISTINCT FROM OLD.changed_at) EXECUTE FUNCTION mayfly.unconfirm_kills();

-- As its owner, as `is_reconciled`.
CREATE FUNCTION mayfly.may_issue_on(p_target text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT mayfly.is_reconciled(p_target) AND t.kills_confirmed FROM mayfly.timeline t
$$;
CREATE OR REPLACE FUNCTION mayfly.intend(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb, p_revocation jsonb, p_key jsonb,
  p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF mayfly.may_issue_on(p_grant->>'target') IS NOT TRUE THEN
    RETURN 'failed_over';
  END IF;
  RETURN mayfly.intend_where_reconciled(p_locks, p_wait, p_seen, p_decision, p_grant, p_revocation, p_key, p_events);
END $$;

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_kill;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_kill(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE (lifted_at, lifted_by, lift_reason) ON mayfly.kills TO %I', runtime);
  EXECUTE format('GRANT UPDATE (kills_confirmed) ON mayfly.timeline TO %I', runtime);
  EXECUTE format('GRANT UPDATE (urgent_at) ON mayfly.revocations TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
