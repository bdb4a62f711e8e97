-- Part 7: the dead-man's switch. With the whole broker down, what runs this once a minute (pg_cron, a CronJob) ends open
-- sessions too. It can do nothing to a role that is not ours or not past its VALID UNTIL, so its caller needs no trust.

CREATE TABLE IF NOT EXISTS mayfly.expire_run (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  at timestamptz NOT NULL,
  by_login name NOT NULL,
  ended integer NOT NULL
);
REVOKE ALL ON ALL TABLES IN SCHEMA mayfly FROM PUBLIC;

-- Roles of ours past their end: by registry and by name or mark, as everywhere (roles_of). Also OIDs of roles that are
-- gone: their sessions may live on.
CREATE OR REPLACE FUNCTION mayfly.past_their_end() RETURNS TABLE (role_oid oid, role_name name, can_login boolean)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.oid, a.rolname, a.rolcanlogin
  FROM mayfly.handle h JOIN pg_authid a ON a.oid = h.role_oid
  LEFT JOIN pg_shdescription d ON d.objoid = a.oid AND d.classoid = 'pg_authid'::regclass
  WHERE h.dropped_at IS NULL AND a.rolvaliduntil <= clock_timestamp()
    AND (a.rolname = h.handle OR coalesce(d.description = mayfly.mark(h.installation, h.grant_id), false))
  UNION ALL
  SELECT h.role_oid, NULL, false FROM mayfly.handle h
  WHERE h.role_oid IS NOT NULL AND h.valid_until <= clock_timestamp()
    AND NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = h.role_oid)
$$;

-- Ends their sessions and sets NOLOGIN, and nothing else: fencing, proof and cleaning are the broker's, when it is back.
-- On a standby it ends the sessions there: nothing can be written, and new logins are refused by VALID UNTIL as everywhere.
-- Answers {"ended": sessions told to end, "cut": logins cut, "left": logins whose row somebody held}.
CREATE OR REPLACE FUNCTION mayfly.expire() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_ended integer[] := '{}';
  v_cut integer := 0;
  v_left integer;
  v_round integer[];
  r record;
BEGIN
  -- Twice: an agent can hold the row of its own role, until its session is ended; and a login may just have come in.
  FOR patience IN REVERSE 200..0 BY 200 LOOP
    v_left := 0;
    FOR r IN SELECT * FROM mayfly.past_their_end() e WHERE e.can_login AND NOT pg_is_in_recovery() ORDER BY e.role_oid LOOP
      -- Held by its own agent: for the second round. By a renewal under way: then it is no longer past its end.
      PERFORM FROM pg_authid a WHERE a.oid = r.role_oid AND a.rolcanlogin AND a.rolvaliduntil <= clock_timestamp() FOR UPDATE SKIP LOCKED;
      IF FOUND THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN', r.role_name);
        v_cut := v_cut + 1;
      ELSE
        v_left := v_left + 1;
      END IF;
    END LOOP;
    PERFORM pg_stat_clear_snapshot();
    v_round := ARRAY(
      SELECT s.pid FROM mayfly.past_their_end() e JOIN pg_stat_get_activity(NULL) s ON s.usesysid = e.role_oid
      WHERE s.pid <> pg_backend_pid());
    PERFORM pg_terminate_backend(x.pid, CASE WHEN v_left > 0 THEN patience ELSE 0 END) FROM unnest(v_round) AS x (pid);
    v_ended := ARRAY(SELECT unnest(v_ended) UNION SELECT unnest(v_round));
    EXIT WHEN v_left = 0 AND v_round = '{}';
  END LOOP;
  IF NOT pg_is_in_recovery() THEN
    INSERT INTO mayfly.expire_run AS x (at, by_login, ended) VALUES (clock_timestamp(), session_user, cardinality(v_ended))
    ON CONFLICT (only_one) DO UPDATE SET at = excluded.at, by_login = excluded.by_login, ended = excluded.ended;
  END IF;
  RETURN jsonb_build_object('ended', cardinality(v_ended), 'cut', v_cut, 'left', v_left);
END
$$;

-- Seconds since it last ran, or NULL.
CREATE OR REPLACE FUNCTION mayfly.expire_age() RETURNS double precision
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT extract(epoch FROM clock_timestamp() - x.at)::double precision FROM mayfly.expire_run x
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
