-- Up Migration
-- Signals: what named sources say of workloads, users and systems, and what of it stands.

-- Up to when each source was heard, by its own time.
CREATE TABLE mayfly.signal_sources (
  source   text PRIMARY KEY,
  heard_at timestamptz NOT NULL
);

-- Each that was accepted. Those that do not stand are forgotten once none as old would be accepted any more; the evidence stays.
CREATE TABLE mayfly.signals (
  id          uuid PRIMARY KEY,
  source      text NOT NULL,
  -- The source's own id of it: said again it is answered again.
  key         text NOT NULL,
  body_digest bytea NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('workload_risk', 'incident', 'change_freeze', 'device', 'user')),
  -- 'workload:<source>:<subject>', 'user:<issuer> <subject>', 'all', 'environment:<name>' or 'target:<name>'.
  subject     text NOT NULL,
  -- Of incidents and freezes, where several may stand on one subject.
  name        text NOT NULL,
  value       text NOT NULL,
  reason      text,
  occurred_at timestamptz NOT NULL,
  expires_at  timestamptz,
  received_at timestamptz NOT NULL,
  -- 'superseded': a newer one of the same source stood already.
  outcome     text NOT NULL CHECK (outcome IN ('taken', 'superseded')),
  UNIQUE (source, key)
);
CREATE INDEX signals_to_forget ON mayfly.signals (received_at);

-- What each source said last of each subject. Decisions read this alone.
CREATE TABLE mayfly.signals_standing (
  source      text NOT NULL,
  kind        text NOT NULL,
  subject     text NOT NULL,
  name        text NOT NULL,
  value       text NOT NULL,
  occurred_at timestamptz NOT NULL,
  expires_at  timestamptz,
  -- It has expired, and what hung on it was told.
  lapsed      boolean NOT NULL DEFAULT false,
  signal_id   uuid NOT NULL REFERENCES mayfly.signals,
  PRIMARY KEY (source, kind, subject, name)
);
CREATE INDEX signals_standing_of_subject ON mayfly.signals_standing (subject) WHERE kind IN ('workload_risk', 'device', 'user');
-- Of these every decision reads all.
CREATE INDEX signals_standing_open ON mayfly.signals_standing (source) WHERE value IN ('open', 'on');
CREATE INDEX signals_standing_to_lapse ON mayfly.signals_standing (expires_at) WHERE NOT lapsed;
CREATE INDEX signals_standing_by_signal ON mayfly.signals_standing (signal_id);
CREATE INDEX signals_standing_to_forget ON mayfly.signals_standing (occurred_at) WHERE value IN ('closed', 'off') OR lapsed;

-- Why tasks are suspended: as long as one row of a task stands, it is.
CREATE TABLE mayfly.suspensions (
  task_id uuid NOT NULL REFERENCES mayfly.tasks,
  -- 'operator', or the standing signal: '<source> <kind> <subject>'.
  cause   text NOT NULL,
  since   timestamptz NOT NULL,
  PRIMARY KEY (task_id, cause)
);
CREATE INDEX suspensions_of_cause ON mayfly.suspensions (cause);

CREATE INDEX tasks_alive_of_user ON mayfly.tasks (subject) WHERE state IN ('offered', 'active', 'suspended');
CREATE INDEX tasks_alive_of_workload ON mayfly.tasks (workload_subject) WHERE state IN ('offered', 'active', 'suspended');

-- The signal that has the grant decided again; null: none.
ALTER TABLE mayfly.grants ADD COLUMN signalled uuid;

-- What stands about a workload, a user, and wherever: null when nothing does. As its owner: brokers that run while the store is migrated
-- ask it before they are given rights anew. In plpgsql, whose plan is kept: one of SQL would be planned at every ask.
CREATE FUNCTION mayfly.signals_about(p_workload text, p_user text) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- As it mostly is: 15 to 30 µs for 60 to 90, on a busy machine on which is_killed takes 20 to 40.
  IF NOT EXISTS (SELECT FROM mayfly.signals_standing WHERE subject IN ('workload:' || p_workload, 'user:' || p_user) AND kind IN ('workload_risk', 'device', 'user'))
    AND NOT EXISTS (SELECT FROM mayfly.signals_standing WHERE value IN ('open', 'on')) THEN
    RETURN NULL;
  END IF;
  RETURN (SELECT jsonb_agg(jsonb_build_object('source', s.source, 'kind', s.kind, 'subject', s.subject, 'value', s.value)
      ORDER BY s.source, s.kind, s.subject, s.name)
    FROM (
      SELECT * FROM mayfly.signals_standing WHERE subject IN ('workload:' || p_workload, 'user:' || p_user) AND kind IN ('workload_risk', 'device', 'user')
      UNION ALL SELECT * FROM mayfly.signals_standing WHERE value IN ('open', 'on')) s
    WHERE s.expires_at IS NULL OR s.expires_at > clock_timestamp());
END $$;

-- Milliseconds since 1970, by source.
CREATE FUNCTION mayfly.signals_heard() RETURNS jsonb LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT coalesce(jsonb_object_agg(source, floor(extract(epoch FROM heard_at) * 1000)), '{}') FROM mayfly.signal_sources);
END $$;

-- What is to be decided again does not become active before it was: a signal, or a phase, may have come while the target worked.
CREATE FUNCTION mayfly.refuse_undecided() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'grant % is to be decided again first', NEW.id USING ERRCODE = 'MF001';
END $$;
CREATE TRIGGER grant_undecided BEFORE UPDATE OF state ON mayfly.grants FOR EACH ROW
  WHEN (OLD.state = 'minting' AND NEW.state = 'active' AND OLD.retained_revision = 0) EXECUTE FUNCTION mayfly.refuse_undecided();

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_signals;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_signals(runtime, sequencer);
  EXECUTE format('GRANT INSERT, UPDATE ON mayfly.signal_sources TO %I', runtime);
  EXECUTE format('GRANT INSERT, DELETE ON mayfly.signals TO %I', runtime);
  EXECUTE format('GRANT INSERT, UPDATE, DELETE ON mayfly.signals_standing TO %I', runtime);
  EXECUTE format('GRANT INSERT, DELETE ON mayfly.suspensions TO %I', runtime);
  EXECUTE format('GRANT UPDATE (signalled) ON mayfly.grants TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;

-- As in 0014, and the signals that stand about it: null where none does.
CREATE OR REPLACE VIEW mayfly.task_states AS
  SELECT t.*, t.workload_source || ':' || t.workload_subject AS workload, c.revision, g.live_grants, g.sensitive_sinks, g.grants,
    g.own_live_grants, g.own_grants, g.touched, g.held, g.held_seconds, a.ancestors,
    EXISTS (SELECT FROM mayfly.kills k WHERE k.lifted_at IS NULL AND (k.scope, k.subject) IN (('all', ''),
      ('agent', t.workload_source || ':' || t.workload_subject), ('issuer', t.issuer), ('task', 'task_' || t.id))) AS killed,
    -- All that a decision is made on and that changes: two asks that must not both be permitted find out about each other. How long it
    -- has held something is not in it, which always changes.
    concat_ws(' ', t.state, coalesce(quote_literal(t.phase), '-'), coalesce(c.revision::text, '-'), g.live_grants, g.sensitive_sinks, g.grants,
      g.own_live_grants, g.own_grants, g.touched, g.held, a.ancestors, s.signals) AS fingerprint,
    s.signals,
    -- Milliseconds since 1970, by source.
    (SELECT jsonb_object_agg(source, floor(extract(epoch FROM heard_at) * 1000)) FROM mayfly.signal_sources) AS heard
  FROM mayfly.tasks t
    CROSS JOIN LATERAL (
      SELECT count(*)::int AS grants, count(*) FILTER (WHERE r.live)::int AS live_grants, count(*) FILTER (WHERE r.live AND r.sink)::int AS sensitive_sinks,
        count(*) FILTER (WHERE r.own)::int AS own_grants, count(*) FILTER (WHERE r.own AND r.live)::int AS own_live_grants,
        coalesce(array_agg(DISTINCT r.target), '{}') AS touched,
        -- One for each live grant.
        coalesce(array_agg(r.entitlement ORDER BY r.entitlement) FILTER (WHERE r.live), '{}') AS held,
        coalesce(sum(r.seconds), 0)::int AS held_seconds
      FROM (SELECT g.entitlement, g.target, g.sink, g.task_id = t.id AS own, g.state IN ('minting', 'active', 'revoking') AS live,
          extract(epoch FROM least(g.ended_at, g.deadline, statement_timestamp()) - g.created_at) AS seconds
        FROM mayfly.grants g WHERE g.root_id = t.root_id AND g.state NOT IN ('pending_approval', 'approved', 'denied')) r) g
    CROSS JOIN LATERAL (SELECT CASE WHEN t.parent_id IS NOT NULL THEN mayfly.ancestors(t.parent_id) END AS ancestors) a
    CROSS JOIN LATERAL (SELECT (SELECT revision FROM mayfly.catalog_active) AS revision) c
    CROSS JOIN LATERAL (SELECT (
      SELECT jsonb_agg(jsonb_build_object('source', n.source, 'kind', n.kind, 'subject', n.subject, 'value', n.value) ORDER BY n.source, n.kind, n.subject, n.name)
      FROM (
        SELECT * FROM mayfly.signals_standing WHERE kind IN ('workload_risk', 'device', 'user')
          AND subject IN ('workload:' || t.workload_source || ':' || t.workload_subject, 'user:' || t.issuer || ' ' || t.subject)
        UNION ALL SELECT * FROM mayfly.signals_standing WHERE value IN ('open', 'on')) n
      WHERE n.expires_at IS NULL OR n.expires_at > clock_timestamp()) AS signals) s;
