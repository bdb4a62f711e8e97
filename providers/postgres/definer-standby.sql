-- Part: hot standbys. What is defined on the primary is there on each standby too, by replication, and nothing may write
-- there: these functions, `kill` and `look` do not.

-- Where the primary is: all that has committed by now, unless asynchronously, lies before this end of its flushed WAL.
CREATE OR REPLACE FUNCTION mayfly.wal() RETURNS TABLE (lsn text, timeline text, started text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT w.lsn::text, left(pg_walfile_name(w.lsn), 8), pg_postmaster_start_time()::text
  FROM (SELECT pg_current_wal_flush_lsn() AS lsn) AS w
$$;

-- Who receives WAL from this server and could serve sessions: not base backups, not logical subscribers.
CREATE OR REPLACE FUNCTION mayfly.replicas() RETURNS TABLE (name text, address text)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.application_name, host(r.client_addr)
  FROM pg_stat_replication r
  WHERE r.state IS DISTINCT FROM 'backup'
    AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
  ORDER BY 1, 2
$$;

-- What a standby says of itself, and whether it has replayed that far.
CREATE OR REPLACE FUNCTION mayfly.standby(p_lsn pg_lsn) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'system_identifier', (SELECT c.system_identifier::text FROM pg_control_system() c),
    'in_recovery', r.recovering,
    'replayed', r.replayed::text,
    'reached', coalesce(r.replayed >= p_lsn, false),
    'behind_bytes', greatest(p_lsn - r.replayed, 0),
    -- As in the name of a WAL file; null while it does not stream. Positions on two timelines do not compare.
    'timeline', (SELECT lpad(upper(to_hex(w.received_tli)), 8, '0') FROM pg_stat_get_wal_receiver() w WHERE w.received_tli > 0),
    'paused', CASE WHEN r.recovering THEN pg_get_wal_replay_pause_state() <> 'not paused' ELSE false END,
    'applies_late', current_setting('recovery_min_apply_delay') <> '0',
    'waits_for_queries', current_setting('max_standby_streaming_delay') = '-1',
    -- Tells one server from another, however it is reached.
    'started', pg_postmaster_start_time()::text)
  FROM (SELECT pg_is_in_recovery() AS recovering, pg_last_wal_replay_lsn() AS replayed) AS r
$$;

-- Replay stands still: whose session holds it up. Ends those of minted roles, whoever's grant they are: no agent may keep
-- the end of another from a standby. Answers {"ended": [pid, …], "held_by": [text, …]}, the latter for a person.
-- A lock is waited for in pg_locks, and its holders are seen there. For a snapshot or a pinned buffer the server does not
-- say whom it waits for: the oldest transaction is the first suspect, and only one a call, since the next may be innocent.
CREATE OR REPLACE FUNCTION mayfly.unblock(p_installation uuid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_startup integer;
  v_waits_for text;
  v_answer jsonb;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  SELECT s.pid, s.wait_event INTO v_startup, v_waits_for
  FROM pg_stat_get_activity(NULL) s WHERE s.backend_type = 'startup';
  WITH holder AS (
    SELECT held.pid
    FROM pg_locks wanted JOIN pg_locks held
      ON held.locktype = 'relation' AND held.relation = wanted.relation AND held.database = wanted.database
    WHERE wanted.pid = v_startup AND NOT wanted.granted AND wanted.locktype = 'relation'
      AND held.granted AND held.pid <> v_startup
    UNION
    (SELECT s.pid FROM pg_stat_get_activity(NULL) s
     WHERE v_waits_for ~ '^(RecoveryConflict|BufferPin|BufferCleanup)' AND s.backend_type = 'client backend'
       AND s.xact_start IS NOT NULL AND s.pid <> pg_backend_pid()
     ORDER BY s.xact_start LIMIT 1)
  ), known AS (
    SELECT s.pid, s.usesysid, a.rolname,
           a.oid IS NULL OR EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = s.usesysid) AS minted
    FROM holder JOIN pg_stat_get_activity(NULL) s ON s.pid = holder.pid LEFT JOIN pg_authid a ON a.oid = s.usesysid
  ), told AS (
    SELECT k.*, CASE WHEN k.minted THEN pg_terminate_backend(k.pid) END AS ended FROM known k
  )
  SELECT jsonb_build_object(
    'ended', coalesce(jsonb_agg(t.pid) FILTER (WHERE t.ended), '[]'),
    'held_by', coalesce(jsonb_agg(format('%s (pid %s)', t.rolname, t.pid)) FILTER (WHERE NOT t.minted), '[]'))
  INTO v_answer FROM told t;
  RETURN v_answer;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
