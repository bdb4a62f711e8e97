-- Managed services, mode `pool`: the roles are there already (mayfly_p_<template>_<n>), each a member of its template, and
-- are lent to one grant after another. A mint is one ALTER ROLE. The handle stays the grant's own; which role it has is
-- only known here, so that whatever comes late for an earlier grant finds nothing of it, and touches nobody else.

CREATE TABLE IF NOT EXISTS mayfly.pooled (
  role_oid oid PRIMARY KEY,
  template text NOT NULL,
  -- Counts the grants that had this role.
  generation bigint NOT NULL DEFAULT 0,
  -- Whose it is now. Null: nobody's.
  handle text UNIQUE,
  -- A login that began with the last tenant's password may still be held open by its client, and would be let in as
  -- soon as the role may log in again: so the role rests until the server has surely ended such a login.
  released_at timestamptz NOT NULL DEFAULT '-infinity',
  free_at timestamptz NOT NULL DEFAULT '-infinity'
);
REVOKE ALL ON mayfly.pooled FROM PUBLIC;

-- As in part 1, but the witness is the registry of loans. Where that knows no tenant of the role that the broker remembers,
-- the registry is not what it was (restored, or another hand in the target): a role that can log in although it is nobody's
-- is taken for this handle's, and one that is not registered at all is a matter for a person. Neither is called gone.
CREATE OR REPLACE FUNCTION mayfly.roles_of(p_handles text[], p_oids oid[])
RETURNS TABLE (ord bigint, role_oid oid, role_name name, ours boolean, can_login boolean, has_password boolean)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.ord, a.oid, a.rolname, l.role_oid IS NOT NULL OR p.role_oid IS NOT NULL, a.rolcanlogin, a.rolpassword IS NOT NULL
  FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
  LEFT JOIN mayfly.pooled l ON l.handle = r.handle
  LEFT JOIN mayfly.pooled p ON p.role_oid = r.remembered
  JOIN pg_authid a ON a.oid = coalesce(l.role_oid, r.remembered)
  WHERE l.role_oid IS NOT NULL
     OR (NOT EXISTS (SELECT FROM mayfly.handle h WHERE h.handle = r.handle AND h.dropped_at IS NOT NULL)
         AND (p.role_oid IS NULL OR (p.handle IS NULL AND a.rolcanlogin)))
$$;

CREATE OR REPLACE FUNCTION mayfly.mint(
  p_installation uuid, p_handle text, p_grant_id uuid, p_template text, p_verifier text,
  p_valid_until timestamptz, p_not_after timestamptz, p_mint_by timestamptz, p_connection_limit integer, p_params jsonb DEFAULT '{}')
RETURNS TABLE (role_oid oid, expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'this target is prepared for the mode pool' USING ERRCODE = 'MF007';
END
$$;

-- The membership that makes a role of the pool what it is.
CREATE OR REPLACE FUNCTION mayfly.lend_template(p_template text, p_role text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('GRANT %I TO %I', p_template, p_role)
    || CASE WHEN current_setting('server_version_num')::integer >= 160000
       THEN ' WITH ADMIN FALSE, INHERIT TRUE, SET FALSE' ELSE '' END;
END
$$;

-- Anything of an earlier tenant that the next one could meet.
CREATE OR REPLACE FUNCTION mayfly.is_spotless(p_role oid, p_template text) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_role AND a.rolcanlogin)
    AND NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) s WHERE s.usesysid = p_role)
    AND NOT EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = p_role)
    AND NOT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role)
    AND NOT EXISTS (SELECT FROM pg_prepared_xacts x JOIN pg_authid a ON a.rolname = x.owner WHERE a.oid = p_role)
    AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = p_role AND m.member <> mayfly.self())
    AND 1 = (SELECT count(DISTINCT m.roleid) FROM pg_auth_members m WHERE m.member = p_role)
    AND EXISTS (SELECT FROM pg_auth_members m JOIN pg_authid t ON t.oid = m.roleid
                WHERE m.member = p_role AND t.rolname = p_template)
$$;

-- Whether a role that was given back then may be lent. Since 18 logins show from their first moment on: if none is left that
-- began before, there is nothing to wait for.
CREATE OR REPLACE FUNCTION mayfly.is_rested(p_released_at timestamptz, p_free_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p_free_at <= clock_timestamp() OR (current_setting('server_version_num')::integer >= 180000 AND NOT EXISTS (
    SELECT FROM pg_stat_get_activity(NULL) s
    WHERE s.usesysid IS NULL AND coalesce(s.backend_type, 'client backend') = 'client backend'
      AND coalesce(s.backend_start <= p_released_at, true)))
$$;

CREATE OR REPLACE FUNCTION mayfly.mint_pooled(
  p_installation uuid, p_handle text, p_grant_id uuid, p_template text, p_verifier text,
  p_valid_until timestamptz, p_not_after timestamptz, p_mint_by timestamptz, p_connection_limit integer)
RETURNS TABLE (role_oid oid, expires_at timestamptz, role_name text, generation bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_column
DECLARE
  v_until timestamptz;
  v_oid oid;
  v_free mayfly.pooled;
  v_name text;
BEGIN
  v_until := mayfly.register(p_installation, p_handle, p_grant_id, p_template, p_verifier,
    p_valid_until, p_not_after, p_mint_by, p_connection_limit);
  -- The longest rested first. Looked at again: the registry may be wrong (restored, or another hand in the target).
  FOREACH v_oid IN ARRAY ARRAY(
    SELECT p.role_oid FROM mayfly.pooled p WHERE p.template = p_template AND p.handle IS NULL
    ORDER BY p.free_at, p.role_oid)
  LOOP
    SELECT p.* INTO v_free FROM mayfly.pooled p WHERE p.role_oid = v_oid AND p.handle IS NULL FOR UPDATE SKIP LOCKED;
    PERFORM pg_stat_clear_snapshot();
    EXIT WHEN v_free.role_oid IS NOT NULL AND mayfly.is_rested(v_free.released_at, v_free.free_at)
      AND mayfly.is_spotless(v_free.role_oid, v_free.template);
    v_free := NULL;
  END LOOP;
  IF v_free.role_oid IS NULL THEN
    RAISE EXCEPTION 'no role of this template''s pool is free' USING ERRCODE = 'MF006',
      HINT = 'They rest for authentication_timeout after each grant. pool_size says how many there are.';
  END IF;
  SELECT a.rolname INTO STRICT v_name FROM pg_authid a WHERE a.oid = v_free.role_oid;
  BEGIN
    EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT %s PASSWORD %L VALID UNTIL %L',
      v_name, p_connection_limit, p_verifier, to_char(v_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
  EXCEPTION WHEN OTHERS OR query_canceled THEN
    -- Raised anew without its context, which would put the verifier into the server's log.
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM;
  END;
  UPDATE mayfly.pooled p SET handle = p_handle, generation = p.generation + 1 WHERE p.role_oid = v_free.role_oid;
  UPDATE mayfly.handle h SET role_oid = v_free.role_oid WHERE h.handle = p_handle;
  IF clock_timestamp() > p_mint_by THEN
    RAISE EXCEPTION 'too late: the time to mint by has passed' USING ERRCODE = 'MF002';
  END IF;
  RETURN QUERY SELECT v_free.role_oid, v_until, v_name, v_free.generation + 1;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
