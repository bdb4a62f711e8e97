-- Managed services, mode `pool`: the end of a loan. As in part 3 and 4, with these differences: a late call for an earlier
-- tenant finds nothing; the membership of the template stays; and instead of being dropped a role is emptied and rests.

-- Whether it owns what would act with the template's rights after the end, too: functions, views, tables with expressions.
CREATE OR REPLACE FUNCTION mayfly.owns_code(p_role oid) RETURNS boolean
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'o'
                 AND s.classid IN ('pg_class'::regclass, 'pg_proc'::regclass))
$$;

-- Takes away every membership but that of the template; that too where the role owns what would act with its rights.
CREATE OR REPLACE FUNCTION mayfly.unlink(p_installation uuid, p_oids oid[], p_wait_ms integer)
RETURNS TABLE (role_oid oid, outcome text, removed integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_by_grantor boolean := current_setting('server_version_num')::integer >= 160000;
  r record;
  m record;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);
  FOR r IN SELECT q.oid AS asked, a.oid AS found, p.template, p.handle FROM unnest(p_oids) AS q (oid)
           LEFT JOIN (mayfly.pooled p JOIN pg_authid a ON a.oid = p.role_oid AND NOT a.rolcanlogin
                      JOIN mayfly.handle h ON h.handle = p.handle AND h.fenced_at IS NOT NULL) ON p.role_oid = q.oid
           ORDER BY q.oid
  LOOP
    role_oid := r.asked;
    removed := 0;
    outcome := 'absent';
    IF r.found IS NOT NULL THEN
      BEGIN
        UPDATE mayfly.handle h SET joined = ARRAY(
          SELECT unnest(h.joined) UNION
          SELECT x.member FROM pg_auth_members x WHERE x.roleid = r.found AND x.member <> mayfly.self())
        WHERE h.handle = r.handle
          AND EXISTS (SELECT FROM pg_auth_members x WHERE x.roleid = r.found AND x.member <> mayfly.self());
        FOR m IN SELECT x.roleid::regrole AS parent, x.member::regrole AS child, x.grantor::regrole AS grantor
                 FROM pg_auth_members x JOIN pg_authid t ON t.oid = x.roleid
                 WHERE (x.member = r.found AND (t.rolname <> r.template OR mayfly.owns_code(r.found)))
                    OR (x.roleid = r.found AND x.member <> mayfly.self())
        LOOP
          EXECUTE format('REVOKE %s FROM %s', m.parent, m.child)
            || CASE WHEN v_by_grantor THEN format(' GRANTED BY %s', m.grantor) ELSE '' END;
          removed := removed + 1;
        END LOOP;
        outcome := 'unlinked';
      EXCEPTION WHEN lock_not_available THEN
        outcome := 'locked';
        PERFORM mayfly.waited();
      WHEN OTHERS THEN
        outcome := mayfly.failure(r.found, SQLSTATE);
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

-- One sweep. Only of roles that are nobody's or whose tenant was fenced: the caller may know the role from an earlier
-- tenant. The rows are held, so that none is lent anew meanwhile.
CREATE OR REPLACE FUNCTION mayfly.kill(p_installation uuid, p_oids oid[], p_suspects integer[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_asleep integer[];
  v_seen jsonb;
  v_pid integer;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM FROM mayfly.pooled p WHERE p.role_oid = ANY (p_oids) ORDER BY p.role_oid FOR SHARE;
  WITH swept AS (
    SELECT p.role_oid, s.pid, pg_terminate_backend(s.pid) AS told
    FROM mayfly.pooled p LEFT JOIN mayfly.handle h ON h.handle = p.handle
    JOIN pg_stat_get_activity(NULL) s
      ON s.usesysid = p.role_oid OR (s.usesysid = ANY (h.joined) AND s.backend_start < h.fenced_at)
    WHERE p.role_oid = ANY (p_oids) AND (p.handle IS NULL OR h.fenced_at IS NOT NULL)
  ), counted AS (
    SELECT t.role_oid, jsonb_agg(t.pid) AS pids, count(t.told) AS told FROM swept t GROUP BY t.role_oid
  )
  SELECT coalesce(jsonb_object_agg(c.role_oid, c.pids) FILTER (WHERE c.told > 0), '{}') INTO v_seen FROM counted c;
  v_asleep := mayfly.asleep();
  FOR v_pid IN SELECT x.pid FROM unnest(p_suspects) AS x (pid) WHERE x.pid = ANY (v_asleep) LOOP
    BEGIN
      PERFORM pg_terminate_backend(v_pid);
    EXCEPTION WHEN insufficient_privilege THEN
      v_asleep := array_remove(v_asleep, v_pid);
    END;
  END LOOP;
  RETURN jsonb_build_object('seen', v_seen, 'asleep', to_jsonb(v_asleep));
END
$$;

-- As in part 10. The loan is held, so that the role is not lent anew while it is emptied.
CREATE OR REPLACE FUNCTION mayfly.ending(p_handle text, p_oid oid) RETURNS TABLE (role_oid oid, state text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM FROM mayfly.pooled p WHERE p.handle = p_handle FOR SHARE;
  RETURN QUERY
    SELECT q.role_oid, CASE WHEN NOT q.ours THEN 'foreign' WHEN h.fenced_at IS NULL OR q.can_login THEN 'live' ELSE 'ending' END
    FROM mayfly.roles_of(ARRAY[p_handle], ARRAY[p_oid]) q LEFT JOIN mayfly.handle h ON h.handle = p_handle
    ORDER BY q.ours LIMIT 1;
END
$$;

-- For the proof of an end. A role that has another tenant by now is none of this handle's.
CREATE OR REPLACE FUNCTION mayfly.look(p_handles text[], p_oids oid[])
RETURNS TABLE (ord bigint, registered oid, minted boolean, fenced_at timestamptz, dropped_at timestamptz, roles jsonb, backends bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.ord, h.role_oid, h.minted_at IS NOT NULL, h.fenced_at, h.dropped_at, coalesce(found.roles, '[]'),
         (SELECT count(*) FROM pg_stat_get_activity(NULL) s
          WHERE s.usesysid IN (p.role_oid, n.role_oid) OR (s.usesysid = ANY (h.joined) AND s.backend_start < h.fenced_at))
  FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
  LEFT JOIN mayfly.handle h ON h.handle = r.handle
  LEFT JOIN mayfly.pooled p ON p.handle = r.handle
  -- Nobody's, and yet it may have sessions.
  LEFT JOIN mayfly.pooled n ON n.role_oid = r.remembered AND n.handle IS NULL
  LEFT JOIN (
    SELECT q.ord, jsonb_agg(jsonb_build_object(
      'oid', q.role_oid::bigint, 'name', q.role_name, 'ours', q.ours, 'can_login', q.can_login, 'has_password', q.has_password,
      'memberships', (SELECT count(*) FROM pg_auth_members m JOIN pg_authid t ON t.oid = m.roleid
                      LEFT JOIN mayfly.pooled l ON l.role_oid = q.role_oid
                      WHERE (m.member = q.role_oid AND (t.rolname IS DISTINCT FROM l.template OR mayfly.owns_code(q.role_oid)))
                         OR (m.roleid = q.role_oid AND m.member <> mayfly.self())))) AS roles
    FROM mayfly.roles_of(p_handles, p_oids) q GROUP BY q.ord
  ) AS found ON found.ord = r.ord
  ORDER BY r.ord
$$;

CREATE OR REPLACE FUNCTION mayfly.list(p_installation uuid, p_after text DEFAULT '', p_limit integer DEFAULT NULL)
RETURNS TABLE (handle text, grant_id uuid, installation uuid, role_oid oid, role_name name, template text,
               valid_until timestamptz, fenced boolean, can_login boolean, marked boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT h.handle, h.grant_id, h.installation, a.oid, a.rolname, h.template, a.rolvaliduntil, h.fenced_at IS NOT NULL,
         a.rolcanlogin, true
  FROM mayfly.pooled p JOIN mayfly.handle h ON h.handle = p.handle JOIN pg_authid a ON a.oid = p.role_oid
  WHERE h.installation = p_installation AND h.handle > p_after
  ORDER BY h.handle LIMIT p_limit
$$;

-- Gives the role back, once `disown` has emptied it. outcome as in part 3, and: busy
CREATE OR REPLACE FUNCTION mayfly.drop(p_installation uuid, p_handles text[], p_oids oid[], p_wait_ms integer, p_owned boolean)
RETURNS TABLE (ord bigint, outcome text, detail text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_outcome text[] := array_fill(NULL::text, ARRAY[cardinality(p_handles)]);
  v_detail text[] := array_fill(NULL::text, ARRAY[cardinality(p_handles)]);
  v_here oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  v_asleep integer[] := mayfly.asleep();
  v_elsewhere text;
  r record;
  s record;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);
  -- Logins under way may be of any of these roles. A quick one is over now, and shows its user.
  IF cardinality(v_asleep) > 0 THEN
    PERFORM pg_sleep(0.1);
    PERFORM pg_stat_clear_snapshot();
    v_asleep := ARRAY(SELECT unnest(v_asleep) INTERSECT SELECT unnest(mayfly.asleep()));
  END IF;
  FOR r IN SELECT q.*, h.fenced_at, p.template FROM mayfly.roles_of(p_handles, p_oids) q
           LEFT JOIN mayfly.pooled p ON p.role_oid = q.role_oid
           LEFT JOIN mayfly.handle h ON h.handle = p.handle ORDER BY q.ord
  LOOP
    IF NOT r.ours THEN
      v_outcome[r.ord] := 'foreign';
    ELSIF r.fenced_at IS NULL OR r.can_login THEN
      v_outcome[r.ord] := 'live';
    ELSIF cardinality(v_asleep) > 0 OR EXISTS (SELECT FROM pg_stat_get_activity(NULL) b WHERE b.usesysid = r.role_oid) THEN
      v_outcome[r.ord] := 'busy';
    ELSIF NOT p_owned AND EXISTS (SELECT FROM pg_shdepend d
                                  WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.role_oid) THEN
      v_outcome[r.ord] := 'owner';
    ELSE
      BEGIN
        PERFORM FROM mayfly.pooled p WHERE p.role_oid = r.role_oid FOR UPDATE;
        SELECT string_agg(DISTINCT d.datname, ', ') INTO v_elsewhere
        FROM pg_shdepend x JOIN pg_database d ON d.oid = x.dbid
        WHERE x.refclassid = 'pg_authid'::regclass AND x.refobjid = r.role_oid AND x.dbid <> v_here;
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL CONNECTION LIMIT 0', r.role_name);
        EXECUTE format('ALTER ROLE %I RESET ALL', r.role_name);
        IF NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_authid t ON t.oid = m.roleid
                       WHERE m.member = r.role_oid AND t.rolname = r.template) THEN
          PERFORM mayfly.lend_template(r.template, r.role_name);
        END IF;
        FOR s IN SELECT d.datname FROM pg_db_role_setting x JOIN pg_database d ON d.oid = x.setdatabase
                 WHERE x.setrole = r.role_oid LOOP
          EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', r.role_name, s.datname);
        END LOOP;
        IF v_elsewhere IS NOT NULL THEN
          v_outcome[r.ord] := 'elsewhere';
          v_detail[r.ord] := v_elsewhere;
        ELSIF EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.role_oid) THEN
          -- Rights, or a database, that a person gave the role itself: only who gave them may take them away.
          v_outcome[r.ord] := 'dependents';
          v_detail[r.ord] := (SELECT string_agg(pg_describe_object(d.classid, d.objid, d.objsubid), ', ') FROM pg_shdepend d
                              WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.role_oid);
        ELSIF EXISTS (SELECT FROM pg_prepared_xact() x WHERE x.ownerid = r.role_oid) THEN
          v_outcome[r.ord] := 'prepared';
          v_detail[r.ord] := mayfly.prepared_by(r.role_oid);
        ELSIF NOT mayfly.is_spotless(r.role_oid, r.template) THEN
          v_outcome[r.ord] := 'busy';
        ELSE
          UPDATE mayfly.pooled p SET handle = NULL, released_at = clock_timestamp(),
            free_at = clock_timestamp() + current_setting('authentication_timeout')::interval + interval '1 second'
          WHERE p.role_oid = r.role_oid;
          UPDATE mayfly.handle h SET dropped_at = clock_timestamp(),
            keep_until = greatest(h.keep_until, clock_timestamp() + interval '10 minutes') WHERE h.handle = p_handles[r.ord];
          v_outcome[r.ord] := 'dropped';
        END IF;
      EXCEPTION WHEN lock_not_available OR internal_error THEN
        v_outcome[r.ord] := 'locked';
        PERFORM mayfly.waited();
      WHEN dependent_objects_still_exist THEN
        v_outcome[r.ord] := 'dependents';
      WHEN OTHERS THEN
        v_outcome[r.ord] := mayfly.failure(r.role_oid, SQLSTATE);
      END;
    END IF;
  END LOOP;
  -- A role that somebody dropped is lent no more.
  DELETE FROM mayfly.pooled p USING mayfly.handle h
  WHERE h.handle = p.handle AND p.handle = ANY (p_handles) AND h.fenced_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = p.role_oid)
    AND NOT EXISTS (SELECT FROM pg_stat_get_activity(NULL) b WHERE b.usesysid = p.role_oid);
  UPDATE mayfly.handle h SET dropped_at = clock_timestamp(),
    keep_until = greatest(h.keep_until, clock_timestamp() + interval '10 minutes')
  FROM unnest(p_handles) WITH ORDINALITY AS q (handle, ord)
  WHERE h.handle = q.handle AND v_outcome[q.ord] IS NULL AND h.role_oid IS NOT NULL AND h.dropped_at IS NULL
    AND h.fenced_at IS NOT NULL AND NOT EXISTS (SELECT FROM mayfly.pooled p WHERE p.handle = h.handle);
  PERFORM mayfly.prune();
  RETURN QUERY SELECT q.ord, coalesce(v_outcome[q.ord], 'absent'), v_detail[q.ord]
    FROM unnest(p_handles) WITH ORDINALITY AS q (handle, ord) ORDER BY q.ord;
END
$$;

-- How the pool of each template stands.
CREATE OR REPLACE FUNCTION mayfly.survey_pool() RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_object_agg(q.template, to_jsonb(q) - 'template'), '{}') FROM (
    SELECT p.template, count(*) AS size, count(p.handle) AS lent,
           count(*) FILTER (WHERE p.handle IS NULL AND NOT mayfly.is_rested(p.released_at, p.free_at)) AS resting,
           count(*) FILTER (WHERE p.handle IS NULL AND NOT mayfly.is_spotless(p.role_oid, p.template)) AS stained
    FROM mayfly.pooled p GROUP BY p.template) AS q
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
