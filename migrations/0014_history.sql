-- Up Migration
-- What a tree has had, for policies to decide on.

CREATE INDEX grants_of_root ON mayfly.grants (root_id);

-- As in 0009, and all that the tree ever had. What is compared here is what a decision was made on: two asks that must not both be
-- permitted find out about each other.
CREATE OR REPLACE FUNCTION mayfly.seen(t mayfly.tasks) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('state', t.state, 'phase', t.phase, 'revision', (SELECT revision FROM mayfly.catalog_active),
    'live_grants', count(*) FILTER (WHERE g.live), 'sensitive_sinks', count(*) FILTER (WHERE g.live AND g.sink), 'grants', count(*),
    'own_live_grants', count(*) FILTER (WHERE g.live AND g.own), 'own_grants', count(*) FILTER (WHERE g.own),
    'touched', coalesce(jsonb_agg(DISTINCT g.target), '[]'),
    'held', (SELECT coalesce(jsonb_object_agg(h.entitlement, h.live), '{}') FROM (
      SELECT entitlement, count(*) AS live FROM mayfly.grants WHERE root_id = t.root_id AND state IN ('minting', 'active', 'revoking') GROUP BY entitlement) h))
    || CASE WHEN t.parent_id IS NULL THEN '{}' ELSE jsonb_build_object('ancestors', mayfly.ancestors(t.parent_id)) END
  FROM (SELECT entitlement, target, sink, task_id = t.id AS own, state IN ('minting', 'active', 'revoking') AS live
    FROM mayfly.grants WHERE root_id = t.root_id AND state NOT IN ('pending_approval', 'approved', 'denied')) g
$$;

-- How long the tree has held something, all grants together.
CREATE FUNCTION mayfly.held_seconds(p_root uuid) RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(extract(epoch FROM least(g.ended_at, g.deadline, clock_timestamp()) - g.created_at)), 0)::integer
  FROM mayfly.grants g WHERE g.root_id = p_root AND g.state NOT IN ('pending_approval', 'approved', 'denied')
$$;
