-- Up Migration
-- What a task is decided on: itself, what its tree has and has had, and whether a kill stands.

CREATE INDEX grants_of_root ON mayfly.grants (root_id) WHERE state NOT IN ('pending_approval', 'approved', 'denied');

-- A view, so that whoever asks plans it once: functions in SQL are planned anew in each statement, and cost three quarters of an ask
-- (150 µs a task; 30 as a view). `mayfly.seen` stays for brokers of before that run beside this.
CREATE VIEW mayfly.task_states AS
  SELECT t.*, t.workload_source || ':' || t.workload_subject AS workload, c.revision, g.live_grants, g.sensitive_sinks, g.grants,
    g.own_live_grants, g.own_grants, g.touched, g.held, g.held_seconds, a.ancestors,
    EXISTS (SELECT FROM mayfly.kills k WHERE k.lifted_at IS NULL AND (k.scope, k.subject) IN (('all', ''),
      ('agent', t.workload_source || ':' || t.workload_subject), ('issuer', t.issuer), ('task', 'task_' || t.id))) AS killed,
    -- All that a decision is made on and that changes: two asks that must not both be permitted find out about each other. How long it
    -- has held something is not in it, which always changes.
    concat_ws(' ', t.state, coalesce(quote_literal(t.phase), '-'), coalesce(c.revision::text, '-'), g.live_grants, g.sensitive_sinks, g.grants,
      g.own_live_grants, g.own_grants, g.touched, g.held, a.ancestors) AS fingerprint
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
    CROSS JOIN LATERAL (SELECT (SELECT revision FROM mayfly.catalog_active) AS revision) c;

-- Brokers that run while the store is migrated meet the functions that read these before they are given rights anew.
DO $$
DECLARE
  r name;
BEGIN
  FOR r IN SELECT DISTINCT grantee FROM information_schema.role_table_grants
    WHERE table_schema = 'mayfly' AND table_name = 'tasks' AND privilege_type = 'SELECT' AND grantee NOT IN (current_user, 'PUBLIC') LOOP
    EXECUTE format('GRANT SELECT ON mayfly.kills, mayfly.task_states TO %I', r);
  END LOOP;
END $$;
