-- Up Migration
-- How often tasks were asked about before a call, and how often a tree was given each entitlement: for policy.

-- Evaluations of each task. In several rows, of which a connection always takes the same one: calls of one task at a time do not wait for
-- each other's commit.
CREATE TABLE mayfly.task_uses (
  root_id   uuid NOT NULL,
  task_id   uuid NOT NULL,
  slot      smallint NOT NULL,
  asked     integer NOT NULL,
  permitted integer NOT NULL,
  PRIMARY KEY (root_id, task_id, slot)
) WITH (fillfactor = 50);
INSERT INTO mayfly.task_uses
  SELECT t.root_id, t.id, 0, count(*), count(*) FILTER (WHERE d.permitted)
  FROM mayfly.decisions d JOIN mayfly.tasks t ON t.id = d.task_id
  WHERE d.action = 'evaluate' AND t.state IN ('active', 'suspended') GROUP BY t.id;

-- As in 0018, and these two.
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
    (SELECT jsonb_object_agg(source, floor(extract(epoch FROM heard_at) * 1000)) FROM mayfly.signal_sources) AS heard,
    -- Of each entitlement: how many grants the tree ever had, and how many of these the task. Null: none of any.
    (SELECT jsonb_object_agg(n.entitlement, jsonb_build_array(n.tree, n.own)) FROM (
      SELECT e.entitlement, count(*) AS tree, count(*) FILTER (WHERE e.own) AS own FROM unnest(g.every, g.every_own) AS e (entitlement, own)
      GROUP BY e.entitlement) n) AS given,
    -- Asked of the tree, permitted to it; asked of the task, permitted to it. Null: the tree was never asked about. It is not in the
    -- fingerprint, and whoever reads only that does not pay for it.
    (SELECT ARRAY[sum(u.asked), sum(u.permitted), coalesce(sum(u.asked) FILTER (WHERE u.task_id = t.id), 0),
        coalesce(sum(u.permitted) FILTER (WHERE u.task_id = t.id), 0)]::int[]
      FROM mayfly.task_uses u WHERE u.root_id = t.root_id HAVING count(*) > 0) AS uses
  FROM mayfly.tasks t
    CROSS JOIN LATERAL (
      SELECT count(*)::int AS grants, count(*) FILTER (WHERE r.live)::int AS live_grants, count(*) FILTER (WHERE r.live AND r.sink)::int AS sensitive_sinks,
        count(*) FILTER (WHERE r.own)::int AS own_grants, count(*) FILTER (WHERE r.own AND r.live)::int AS own_live_grants,
        coalesce(array_agg(DISTINCT r.target), '{}') AS touched,
        -- One for each live grant.
        coalesce(array_agg(r.entitlement ORDER BY r.entitlement) FILTER (WHERE r.live), '{}') AS held,
        coalesce(sum(r.seconds), 0)::int AS held_seconds,
        array_agg(r.entitlement) AS every, array_agg(r.own) AS every_own
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

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_0021;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_0021(runtime, sequencer);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE (asked, permitted) ON mayfly.task_uses TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
