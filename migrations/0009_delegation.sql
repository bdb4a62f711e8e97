-- Up Migration
-- Tasks that tasks delegate, and what is said of a task after it was opened.

-- Until when an offered task can be claimed. Null for one that was opened.
ALTER TABLE mayfly.tasks ADD COLUMN claim_by timestamptz;
-- Its phase moves with its parent's: the delegation named none.
ALTER TABLE mayfly.tasks ADD COLUMN follows_phase boolean NOT NULL DEFAULT false;
-- What could not lapse would stand for ever.
ALTER TABLE mayfly.tasks ADD CONSTRAINT tasks_offer_ends CHECK (state <> 'offered' OR claim_by IS NOT NULL);
-- A subtree is read level by level: without it, all tasks for each level.
CREATE INDEX tasks_of_parent ON mayfly.tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_offered_until ON mayfly.tasks (claim_by) WHERE state = 'offered';

-- Delegations and events: each counts once. Task requests stand in `tasks` themselves. An agent signs delegations as its task, so that
-- none of its `jti` is in the way of an issuer's.
CREATE TABLE mayfly.signed_words (
  iss            text NOT NULL,
  jti            text NOT NULL,
  -- SHA-256 of the payload's bytes: another spelling of the signature is the same word.
  payload_digest bytea NOT NULL,
  -- What came of it, or what it is about.
  task_id        uuid NOT NULL REFERENCES mayfly.tasks DEFERRABLE INITIALLY DEFERRED,
  -- Who brought it: nobody else is answered by it again.
  carrier        text NOT NULL,
  taken_at       timestamptz NOT NULL,
  PRIMARY KEY (iss, jti)
);

-- A task and all that hangs on it: how far below, and whether it follows the first one's phase. Always by the index: without statistics
-- the planner reads the whole table for each level (10,000 tasks, 5,000 levels: 17 s for 0.3).
CREATE FUNCTION mayfly.subtree(p_id uuid) RETURNS TABLE (id uuid, below integer, follows boolean) LANGUAGE sql STABLE ROWS 100
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH RECURSIVE s (id, below, follows) AS (
    SELECT t.id, 0, true FROM mayfly.tasks t WHERE t.id = p_id
    UNION ALL SELECT t.id, s.below + 1, s.follows AND t.follows_phase FROM s JOIN mayfly.tasks t ON t.parent_id = s.id)
  SELECT id, below, follows FROM s
$$;

-- All that a task hangs on, its parent first.
CREATE FUNCTION mayfly.ancestors(p_parent uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
  WITH RECURSIVE above AS (
    SELECT id, parent_id, 1 AS up FROM mayfly.tasks WHERE id = p_parent
    UNION ALL SELECT t.id, t.parent_id, a.up + 1 FROM above a JOIN mayfly.tasks t ON t.id = a.parent_id)
  SELECT jsonb_agg(jsonb_build_object('state', t.state, 'phase', t.phase, 'ceiling', t.ceiling, 'max_depth', t.max_depth,
    'not_after_millis', floor(extract(epoch FROM t.not_after) * 1000)) ORDER BY a.up) FROM above a JOIN mayfly.tasks t USING (id)
$$;

-- As in 0002, and for a delegated task all that it hangs on. One that was opened costs what it cost.
CREATE OR REPLACE FUNCTION mayfly.seen(t mayfly.tasks) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('state', t.state, 'phase', t.phase, 'revision', (SELECT revision FROM mayfly.catalog_active),
    'live_grants', count(*), 'sensitive_sinks', count(*) FILTER (WHERE g.sink))
    || CASE WHEN t.parent_id IS NULL THEN '{}' ELSE jsonb_build_object('ancestors', mayfly.ancestors(t.parent_id)) END
  FROM mayfly.grants g WHERE g.root_id = t.root_id AND g.state IN ('minting', 'active', 'revoking')
$$;

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_delegation;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_delegation(runtime, sequencer);
  EXECUTE format('GRANT INSERT ON mayfly.signed_words TO %I', runtime);
  -- Of a delegated task it is known when it is claimed.
  EXECUTE format('GRANT UPDATE (instance) ON mayfly.tasks TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
