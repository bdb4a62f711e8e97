-- Part 2: making a role, and moving its end.

-- As it was before version 3, without params.
DROP FUNCTION IF EXISTS mayfly.mint(uuid, text, uuid, text, text, timestamptz, timestamptz, timestamptz, integer);

-- What every mint begins with: refuses what is malformed, late, not allowed or too long, and takes the row of the handle. Answers
-- the end that the role gets.
CREATE OR REPLACE FUNCTION mayfly.register(
  p_installation uuid, p_handle text, p_grant_id uuid, p_template text, p_verifier text,
  p_valid_until timestamptz, p_not_after timestamptz, p_mint_by timestamptz, p_connection_limit integer)
RETURNS timestamptz LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Reading clocks apart, two machines may differ by this much about a life that is exactly as long as allowed.
  c_slack constant interval := '5 seconds';
  v_template mayfly.template;
  v_now timestamptz := clock_timestamp();
  v_until timestamptz;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  -- An old snapshot would count the roles of then.
  IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
    RAISE EXCEPTION 'a mint must be a transaction that is read committed' USING ERRCODE = 'MF007';
  END IF;
  IF p_handle IS NULL OR p_grant_id IS NULL OR p_handle <> 'mfy_' || replace(p_grant_id::text, '-', '') THEN
    RAISE EXCEPTION 'the handle is not that of the grant' USING ERRCODE = 'MF007';
  END IF;
  -- No backslash in any literal here: standard_conforming_strings is the caller's. At most 99999 iterations: each mint
  -- makes the server run them.
  IF p_verifier IS NULL
     OR p_verifier !~ '^SCRAM-SHA-256[$][1-9][0-9]{0,4}:[A-Za-z0-9+/]{22}==[$][A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$' THEN
    RAISE EXCEPTION 'the verifier is not a SCRAM-SHA-256 verifier' USING ERRCODE = 'MF007';
  END IF;
  IF p_connection_limit IS NULL OR p_connection_limit NOT BETWEEN 1 AND 100 THEN
    RAISE EXCEPTION 'the connection limit must be 1 to 100' USING ERRCODE = 'MF007';
  END IF;
  IF p_valid_until IS NULL OR p_mint_by IS NULL OR p_not_after IS NULL OR p_mint_by > v_now + interval '1 day' THEN
    RAISE EXCEPTION 'the times are missing or too far away' USING ERRCODE = 'MF007';
  END IF;
  IF v_now > p_mint_by OR v_now >= p_valid_until THEN
    RAISE EXCEPTION 'too late: the time to mint by has passed' USING ERRCODE = 'MF002';
  END IF;
  SELECT * INTO v_template FROM mayfly.template t WHERE t.name = p_template;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the template is not on the allow-list of this target' USING ERRCODE = 'MF004';
  END IF;
  IF p_valid_until > v_now + make_interval(secs => v_template.max_seconds) + c_slack THEN
    RAISE EXCEPTION 'this template allows at most % seconds', v_template.max_seconds USING ERRCODE = 'MF005';
  END IF;
  v_until := least(p_valid_until, v_now + make_interval(secs => v_template.max_seconds));

  -- The row that `fence` takes too. A tombstone is already there if the end came first.
  INSERT INTO mayfly.handle (handle, grant_id, installation, template, minted_at, valid_until, not_after, keep_until)
  VALUES (p_handle, p_grant_id, p_installation, p_template, v_now, v_until,
          greatest(v_until, least(p_not_after, v_now + make_interval(secs => v_template.max_total_seconds))),
          p_mint_by + interval '1 minute')
  ON CONFLICT (handle) DO NOTHING;
  IF NOT FOUND THEN
    IF EXISTS (SELECT FROM mayfly.handle h WHERE h.handle = p_handle AND h.fenced_at IS NOT NULL) THEN
      RAISE EXCEPTION 'this grant was ended before it was minted' USING ERRCODE = 'MF003';
    END IF;
    RAISE EXCEPTION 'this handle is already used' USING ERRCODE = 'MF008';
  END IF;
  RETURN v_until;
END
$$;

CREATE OR REPLACE FUNCTION mayfly.mint(
  p_installation uuid, p_handle text, p_grant_id uuid, p_template text, p_verifier text,
  p_valid_until timestamptz, p_not_after timestamptz, p_mint_by timestamptz, p_connection_limit integer,
  p_params jsonb DEFAULT '{}')
RETURNS TABLE (role_oid oid, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
DECLARE
  v_until timestamptz;
  v_oid oid;
  v_max_live integer;
  v_live integer;
  v_counter text := format('mayfly.%I', 'live_' || substr(p_template, 10));
BEGIN
  v_until := mayfly.register(p_installation, p_handle, p_grant_id, p_template, p_verifier,
    p_valid_until, p_not_after, p_mint_by, p_connection_limit);
  BEGIN
    -- 3 ms of CPU: the server runs PBKDF2 to see that the password is not empty. So before any shared lock.
    EXECUTE format(
      'CREATE ROLE %I LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS '
      || 'CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L',
      p_handle, p_connection_limit, p_verifier,
      to_char(v_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
    EXECUTE format('COMMENT ON ROLE %I IS %L', p_handle, mayfly.mark(p_installation, p_grant_id));
    -- One after another per template from here on (0.3 ms), so that the cap is exact.
    SELECT t.max_live INTO STRICT v_max_live FROM mayfly.template t WHERE t.name = p_template FOR NO KEY UPDATE;
    -- To count costs as much as there are (60 ms at 50,000). The sequence counts what was minted, and errs upwards only: it
    -- is set right when it reaches the cap. As a sequence it leaves no dead rows behind a snapshot that an agent holds.
    IF to_regclass(v_counter) IS NULL THEN
      EXECUTE format('CREATE SEQUENCE %s START WITH 1000000', v_counter);
    END IF;
    IF nextval(v_counter) > v_max_live THEN
      SELECT count(*) INTO v_live FROM (
        SELECT FROM mayfly.handle h
        WHERE h.template = p_template AND h.role_oid IS NOT NULL AND h.fenced_at IS NULL
        LIMIT v_max_live) AS live;
      IF v_live >= v_max_live THEN
        RAISE EXCEPTION 'this template allows at most % live roles', v_max_live USING ERRCODE = 'MF006';
      END IF;
      PERFORM setval(v_counter, v_live + 1);
    END IF;
    -- CREATE ROLE … IN ROLE would always allow SET ROLE. Before 16 there is no way to refuse it.
    EXECUTE format('GRANT %I TO %I', p_template, p_handle)
      || CASE WHEN current_setting('server_version_num')::integer >= 160000
         THEN ' WITH ADMIN FALSE, INHERIT TRUE, SET FALSE' ELSE '' END;
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    -- Raised anew without its context, which would put the verifier into the server's log.
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
  END;

  SELECT a.oid INTO STRICT v_oid FROM pg_authid a WHERE a.rolname = p_handle;
  -- Before the snapshot of the settings: what it sets is ours.
  PERFORM mayfly.bind(p_template, p_handle, v_oid, p_params);
  -- For `inspect`. A digest, to notice another password by: the verifier itself is in pg_authid alone. And whatever is
  -- set on the role by now is set by us.
  UPDATE mayfly.handle h SET role_oid = v_oid, connection_limit = p_connection_limit,
    verifier_digest = sha256(convert_to(p_verifier, 'UTF8')),
    settings = coalesce((SELECT s.setconfig FROM pg_db_role_setting s WHERE s.setrole = v_oid AND s.setdatabase = 0), '{}')
  WHERE h.handle = p_handle;
  IF clock_timestamp() > p_mint_by THEN
    RAISE EXCEPTION 'too late: the time to mint by has passed' USING ERRCODE = 'MF002';
  END IF;
  RETURN QUERY SELECT v_oid, v_until;
END
$$;

-- Moves VALID UNTIL of a living role. Never gives LOGIN or a password back.
CREATE OR REPLACE FUNCTION mayfly.renew(p_installation uuid, p_handle text, p_until timestamptz)
RETURNS TABLE (role_oid oid, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  c_slack constant interval := '5 seconds';
  v_row mayfly.handle;
  v_role record;
  v_template mayfly.template;
  v_now timestamptz;
  v_until timestamptz;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  IF p_until IS NULL THEN
    RAISE EXCEPTION 'the time is missing' USING ERRCODE = 'MF007';
  END IF;
  SELECT * INTO v_row FROM mayfly.handle h WHERE h.handle = p_handle FOR UPDATE;
  v_now := clock_timestamp();
  IF NOT FOUND OR v_row.role_oid IS NULL OR v_row.fenced_at IS NOT NULL OR v_row.dropped_at IS NOT NULL
     OR v_row.valid_until <= v_now OR p_until <= v_now THEN
    RAISE EXCEPTION 'this grant is not alive here' USING ERRCODE = 'MF009';
  END IF;
  SELECT r.* INTO v_role FROM mayfly.roles_of(ARRAY[p_handle], ARRAY[v_row.role_oid]) r
  WHERE r.role_oid = v_row.role_oid AND r.ours AND r.can_login;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'this grant is not alive here' USING ERRCODE = 'MF009';
  END IF;
  SELECT * INTO v_template FROM mayfly.template t WHERE t.name = v_row.template;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the template is not on the allow-list of this target' USING ERRCODE = 'MF004';
  END IF;
  v_until := least(v_row.not_after, v_now + make_interval(secs => v_template.max_seconds));
  IF p_until > v_until + c_slack THEN
    RAISE EXCEPTION 'this grant may be renewed for % seconds at most',
      greatest(0, floor(extract(epoch FROM v_until - v_now))) USING ERRCODE = 'MF005';
  END IF;
  -- Never earlier than it is: of two renewals at once the shorter may come last.
  v_until := greatest(least(p_until, v_until), v_row.valid_until);
  EXECUTE format('ALTER ROLE %I VALID UNTIL %L', v_role.role_name,
                 to_char(v_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
  UPDATE mayfly.handle h SET valid_until = v_until WHERE h.handle = p_handle;
  RETURN QUERY SELECT v_role.role_oid, v_until;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
