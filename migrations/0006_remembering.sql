-- Up Migration
-- How a store notices that it may have forgotten its last moments: another timeline than the last known one is a promoted standby,
-- or a backup that was restored. Nothing is issued on a target from then on until it was reconciled on the new one.

-- 0 where the server has none that it would tell: a service whose servers share their storage.
CREATE FUNCTION mayfly.current_timeline() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  RETURN ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
EXCEPTION WHEN feature_not_supported OR insufficient_privilege THEN
  RETURN 0;
END $$;

CREATE TABLE mayfly.timeline (
  singleton  boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  -- The last known one.
  timeline   integer NOT NULL,
  -- Null until it changes for the first time.
  changed_at timestamptz
);
INSERT INTO mayfly.timeline (timeline) VALUES (mayfly.current_timeline());

-- On which timeline the run in hand began, and the last one that was done. No times: clocks of two servers may differ.
ALTER TABLE mayfly.reconciliations ADD COLUMN run_timeline integer, ADD COLUMN reconciled_timeline integer;

-- As its owner: brokers that run while the store is migrated ask it before they are given rights anew.
CREATE FUNCTION mayfly.is_reconciled(p_target text) RETURNS boolean LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.timeline = mayfly.current_timeline() AND (t.changed_at IS NULL
    OR EXISTS (SELECT FROM mayfly.reconciliations r WHERE r.target = p_target AND r.reconciled_timeline = t.timeline))
  FROM mayfly.timeline t
$$;

-- As before, and 'failed_over' where nothing may be issued yet: asked by the server that would commit it, so that there is no moment
-- between a promotion and its notice.
ALTER FUNCTION mayfly.intend(integer[], boolean, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb) RENAME TO intend_where_reconciled;
CREATE FUNCTION mayfly.intend(p_locks integer[], p_wait boolean, p_seen jsonb, p_decision jsonb, p_grant jsonb, p_revocation jsonb, p_key jsonb,
  p_events jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF mayfly.is_reconciled(p_grant->>'target') IS NOT TRUE THEN
    RETURN 'failed_over';
  END IF;
  RETURN mayfly.intend_where_reconciled(p_locks, p_wait, p_seen, p_decision, p_grant, p_revocation, p_key, p_events);
END $$;

-- Facts tell in which system a credential was made. Of what lost them, the tenure that the target shows tells it: one that began later
-- is another system's. Of those from before this nothing is known.
ALTER TABLE mayfly.tenures ADD COLUMN begun_at timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE mayfly.tenures ALTER COLUMN begun_at SET DEFAULT clock_timestamp();

-- What the store forgot since this beat is noticed already. Each target shows a beat that a store does not know which was set back
-- where no timeline tells of it: of many targets, and many replicas, the first one to see that tells it for all.
ALTER TABLE mayfly.tenures ADD COLUMN noticed boolean NOT NULL DEFAULT false;

-- As in 0004, and with what is being made: a fence that is one document about all of a target reads both each time, and without an
-- index it would read all that ever ended there, too (40,000 rows for 4,000: 207 ms for 41).
-- The old one goes last: from then on nobody can read the grants until the commit.
CREATE INDEX grants_living_of_target ON mayfly.grants (target, handle COLLATE "C") WHERE state IN ('minting', 'active');
DROP INDEX mayfly.grants_alive_of_target;

-- What was contained, or clean, and lives again is owed its end once more.
INSERT INTO mayfly.transitions VALUES ('revocation', 'contained', 'due');

CREATE TRIGGER audit_event_cried AFTER INSERT ON mayfly.audit_events FOR EACH ROW
  WHEN (NEW.type IN ('revocation.returned', 'store.failed_over', 'target.held_elsewhere')) EXECUTE FUNCTION mayfly.notice_event();

ALTER FUNCTION mayfly.grant_rights(name, name) RENAME TO grant_rights_before_remembering;
CREATE FUNCTION mayfly.grant_rights(runtime name, sequencer name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM mayfly.grant_rights_before_remembering(runtime, sequencer);
  EXECUTE format('GRANT UPDATE (timeline, changed_at) ON mayfly.timeline TO %I', runtime);
END $$;
REVOKE EXECUTE ON FUNCTION mayfly.grant_rights(name, name) FROM PUBLIC;
