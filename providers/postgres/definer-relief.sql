-- Part 12: when the lock table is full (an agent may hold as many advisory locks as fit), nothing can be written, since a
-- transaction that writes takes a lock on itself; nor can a shared catalog be read, nor a session be ended, nor a login be
-- made. `stand` is called in a transaction that then stays open, at READ COMMITTED and without writing, so that it holds
-- back no vacuum: it keeps the locks that `relieve` will need in that same transaction.
-- Touches nothing of ours: that would be in the way of the next `mayfly target prepare`.
CREATE OR REPLACE FUNCTION mayfly.stand() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN (SELECT count(*) FROM pg_roles WHERE oid = 10) + (SELECT count(*) FROM pg_auth_members WHERE member = 10)
  + (SELECT count(*) FROM pg_database WHERE oid = 1) + (SELECT count(*) FROM pg_db_role_setting WHERE setrole = 10);

-- Reads few relations and writes nothing. Ends the sessions of these roles, and of all roles of ours those three that hold most locks.
CREATE OR REPLACE FUNCTION mayfly.relieve(p_installation uuid, p_oids oid[], p_really boolean) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_told integer;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  -- In an open transaction the statistics are those of the first look.
  PERFORM pg_stat_clear_snapshot();
  WITH ours AS (
    SELECT s.pid, s.usesysid, (SELECT count(*) FROM pg_lock_status() l WHERE l.pid = s.pid) AS held
    FROM pg_stat_get_activity(NULL) s WHERE EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = s.usesysid)
  ), most AS (
    SELECT o.pid FROM ours o WHERE o.held > 50 ORDER BY o.held DESC LIMIT 3
  )
  SELECT count(pg_terminate_backend(o.pid)) INTO v_told FROM ours o
  WHERE p_really AND (o.usesysid = ANY (p_oids) OR o.pid IN (SELECT m.pid FROM most m));
  RETURN v_told;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
