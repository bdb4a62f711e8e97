-- Part 3: the end of a role, in batches. Each function does one step for many refs and answers one row per ref, in
-- order (`ord` from 1); a bad ref fails alone. The order of the steps is the broker's: fence, unlink, kill, drop.

-- A statement failed on a role. If that is because somebody else has just dropped it, the work is done.
CREATE OR REPLACE FUNCTION mayfly.failure(p_oid oid, p_state text) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_oid) THEN 'failed:' || p_state ELSE 'absent' END
$$;

-- A batch waits for one lock only. Those after it are likely to meet the same holder, and would add up.
CREATE OR REPLACE FUNCTION mayfly.waited() RETURNS void
LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.set_config('lock_timeout', '1', true) $$;

-- Cuts the login, and leaves a tombstone for a mint that is still on its way. Commits alone.
-- outcome: fenced | absent | locked | foreign | malformed | failed:<SQLSTATE>
-- p_remember: until when the tombstone of a handle that was never minted must be kept.
-- p_alone: wait for locks (p_wait_ms) rather than skip: for one ref at a time, while another connection ends its sessions.
CREATE OR REPLACE FUNCTION mayfly.fence(
  p_installation uuid, p_handles text[], p_oids oid[], p_remember timestamptz[], p_wait_ms integer, p_alone boolean)
RETURNS TABLE (ord bigint, outcome text, role_oid oid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_now timestamptz := clock_timestamp();
  v_held text[];
  v_outcome text[] := array_fill(NULL::text, ARRAY[cardinality(p_handles)]);
  v_oid oid[] := array_fill(NULL::oid, ARRAY[cardinality(p_handles)]);
  v_picked oid[];
  v_ours oid[];
  r record;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);

  -- The tombstones. Rows that are there and free at once; the others one by one, since a mint may hold one of them.
  IF p_alone THEN
    v_held := '{}';
  ELSE
    v_held := ARRAY(SELECT h.handle FROM mayfly.handle h WHERE h.handle = ANY (p_handles)
                    ORDER BY h.handle FOR UPDATE SKIP LOCKED);
    UPDATE mayfly.handle h SET fenced_at = v_now WHERE h.handle = ANY (v_held) AND h.fenced_at IS NULL;
  END IF;
  FOR r IN SELECT q.handle, q.ord, q.remember
           FROM ROWS FROM (unnest(p_handles), unnest(p_remember)) WITH ORDINALITY AS q (handle, remember, ord)
           WHERE q.handle IS NULL OR q.handle <> ALL (v_held) ORDER BY q.handle
  LOOP
    IF r.handle IS NULL OR r.handle !~ '^mfy_[0-9a-f]{32}$' THEN
      v_outcome[r.ord] := 'malformed';
      CONTINUE;
    END IF;
    BEGIN
      INSERT INTO mayfly.handle (handle, grant_id, installation, fenced_at, keep_until)
      VALUES (r.handle, substr(r.handle, 5)::uuid, p_installation, v_now,
              least(greatest(r.remember, v_now), v_now + interval '2 days') + interval '10 minutes')
      ON CONFLICT (handle) DO UPDATE SET fenced_at = coalesce(mayfly.handle.fenced_at, v_now);
    EXCEPTION WHEN lock_not_available THEN
      v_outcome[r.ord] := 'locked';
      PERFORM mayfly.waited();
    END;
  END LOOP;
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);

  -- A role that bears our mark and is not registered (a registry that was restored) is taken in, so that all later
  -- steps know it.
  UPDATE mayfly.handle h SET role_oid = q.role_oid, dropped_at = NULL
  FROM mayfly.roles_of(p_handles, p_oids) q
  WHERE q.ours AND h.handle = p_handles[q.ord] AND v_outcome[q.ord] IS NULL
    AND (h.role_oid IS NULL OR h.dropped_at IS NOT NULL);

  -- An agent can hold the row of its own role (BEGIN; ALTER ROLE current_user …): such a role is skipped here.
  v_ours := ARRAY(SELECT q.role_oid FROM mayfly.roles_of(p_handles, p_oids) q WHERE q.ours AND v_outcome[q.ord] IS NULL);
  IF p_alone THEN
    BEGIN
      v_picked := ARRAY(SELECT a.oid FROM pg_authid a WHERE a.oid = ANY (v_ours) ORDER BY a.oid FOR UPDATE);
    EXCEPTION WHEN lock_not_available THEN
      v_picked := '{}';
    END;
  ELSE
    v_picked := ARRAY(SELECT a.oid FROM pg_authid a WHERE a.oid = ANY (v_ours) ORDER BY a.oid FOR UPDATE SKIP LOCKED);
  END IF;

  FOR r IN SELECT * FROM mayfly.roles_of(p_handles, p_oids) q ORDER BY q.ord, q.ours DESC LOOP
    CONTINUE WHEN v_outcome[r.ord] IN ('malformed', 'locked');
    IF r.ours THEN
      v_oid[r.ord] := r.role_oid;
    END IF;
    IF NOT r.ours THEN
      v_outcome[r.ord] := 'foreign';
    ELSIF r.role_oid <> ALL (v_picked) THEN
      v_outcome[r.ord] := 'locked';
    ELSE
      BEGIN
        IF r.can_login OR r.has_password THEN
          EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL CONNECTION LIMIT 0', r.role_name);
        END IF;
        v_outcome[r.ord] := 'fenced';
      EXCEPTION WHEN lock_not_available OR internal_error THEN
        -- internal_error: "tuple concurrently updated", where the row could not be locked first (managed services).
        v_outcome[r.ord] := 'locked';
        PERFORM mayfly.waited();
      WHEN OTHERS THEN
        v_outcome[r.ord] := mayfly.failure(r.role_oid, SQLSTATE);
      END;
    END IF;
  END LOOP;

  -- The OIDs of dropped roles too: their sessions may live on.
  RETURN QUERY
    SELECT q.ord, coalesce(v_outcome[q.ord], 'absent'), coalesce(v_oid[q.ord], h.role_oid)
    FROM unnest(p_handles) WITH ORDINALITY AS q (handle, ord) LEFT JOIN mayfly.handle h ON h.handle = q.handle
    ORDER BY q.ord;
END
$$;

-- Takes every membership away: the template's, and those that others have in the role.
-- outcome: unlinked | absent | locked | failed:<SQLSTATE>
CREATE OR REPLACE FUNCTION mayfly.unlink(p_installation uuid, p_oids oid[], p_wait_ms integer)
RETURNS TABLE (role_oid oid, outcome text, removed integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_by_grantor boolean := current_setting('server_version_num')::integer >= 160000;
  v_gone oid[] := '{}';
  r record;
  m record;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);

  -- Since 16 each REVOKE lists all members of the template first (75 ms at 50,000), so those of a batch go in one.
  -- What that cannot do is done one by one below.
  FOR m IN SELECT x.roleid::regrole AS parent, x.grantor::regrole AS grantor, array_agg(x.member) AS members,
                  string_agg(x.member::regrole::text, ', ') AS children
           FROM pg_auth_members x JOIN pg_authid a ON a.oid = x.member
           WHERE x.member = ANY (p_oids) AND NOT a.rolcanlogin
             AND EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = a.oid AND h.fenced_at IS NOT NULL AND h.dropped_at IS NULL)
           GROUP BY x.roleid, x.grantor HAVING count(*) > 1
  LOOP
    BEGIN
      EXECUTE format('REVOKE %s FROM %s', m.parent, m.children)
        || CASE WHEN v_by_grantor THEN format(' GRANTED BY %s', m.grantor) ELSE '' END;
      v_gone := v_gone || m.members;
    EXCEPTION WHEN lock_not_available THEN
      PERFORM mayfly.waited();
    WHEN OTHERS THEN
      CONTINUE;
    END;
  END LOOP;

  FOR r IN SELECT q.oid AS asked, a.oid AS found FROM unnest(p_oids) AS q (oid)
           LEFT JOIN pg_authid a ON a.oid = q.oid AND NOT a.rolcanlogin
             AND EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = a.oid AND h.fenced_at IS NOT NULL AND h.dropped_at IS NULL)
           ORDER BY q.oid
  LOOP
    role_oid := r.asked;
    removed := cardinality(array_positions(v_gone, r.asked));
    outcome := 'absent';
    IF r.found IS NOT NULL THEN
      BEGIN
        UPDATE mayfly.handle h SET joined = ARRAY(
          SELECT unnest(h.joined) UNION SELECT x.member FROM pg_auth_members x WHERE x.roleid = r.found AND x.member <> mayfly.self())
        WHERE h.role_oid = r.found
          AND EXISTS (SELECT FROM pg_auth_members x WHERE x.roleid = r.found AND x.member <> mayfly.self());
        FOR m IN SELECT x.roleid::regrole AS parent, x.member::regrole AS child, x.grantor::regrole AS grantor
                 FROM pg_auth_members x
                 WHERE x.member = r.found OR (x.roleid = r.found AND x.member <> mayfly.self())
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

-- One sweep: terminates the backends of these roles, by OID, since a dropped role has no name there any more.
-- Only roles of ours, or roles that no longer exist. p_suspects: backends that a caller saw asleep 100 ms ago.
-- Answers {"seen": {"<oid>": [pid, …]}, "asleep": [pid, …]}; a session of a role that had joined counts for the role it joined.
CREATE OR REPLACE FUNCTION mayfly.kill(p_installation uuid, p_oids oid[], p_suspects integer[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_asleep integer[];
  v_seen jsonb;
  v_pid integer;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  -- The roles first, as in `sessions`.
  WITH asked AS MATERIALIZED (
    SELECT q.oid, h.joined, h.fenced_at FROM (SELECT DISTINCT unnest(p_oids) AS oid) q
    LEFT JOIN LATERAL (SELECT r.role_oid, r.joined, r.fenced_at FROM mayfly.handle r WHERE r.role_oid = q.oid OFFSET 0) h ON true
    WHERE h.role_oid IS NOT NULL OR NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = q.oid)
  ), swept AS (
    SELECT q.oid AS role_oid, s.pid, pg_terminate_backend(s.pid) AS told
    FROM asked q
    JOIN pg_stat_get_activity(NULL) s
      ON s.usesysid = q.oid OR (s.usesysid = ANY (q.joined) AND s.backend_start < q.fenced_at)
  ), counted AS (
    SELECT t.role_oid, jsonb_agg(t.pid) AS pids, count(t.told) AS told FROM swept t GROUP BY t.role_oid
  )
  SELECT coalesce(jsonb_object_agg(c.role_oid, c.pids) FILTER (WHERE c.told > 0), '{}') INTO v_seen FROM counted c;
  v_asleep := mayfly.asleep();
  FOR v_pid IN SELECT x.pid FROM unnest(p_suspects) AS x (pid) WHERE x.pid = ANY (v_asleep) LOOP
    BEGIN
      PERFORM pg_terminate_backend(v_pid);
    EXCEPTION WHEN insufficient_privilege THEN
      -- Only a superuser's, or one without a role: where we are no superuser, that is how it shows that it is none of ours.
      v_asleep := array_remove(v_asleep, v_pid);
    END;
  END LOOP;
  RETURN jsonb_build_object('seen', v_seen, 'asleep', to_jsonb(v_asleep));
END
$$;

-- Removes the role. Only what was fenced.
-- outcome: dropped | owner | absent | live | locked | elsewhere (detail: the databases) | dependents (detail: which)
--   | prepared (detail: the commands) | foreign | failed:<SQLSTATE>
-- p_owned: also roles that held things or rights: one ref at a time, after `disown`. Otherwise such a role is left, and
-- told as `owner`.
CREATE OR REPLACE FUNCTION mayfly.drop(p_installation uuid, p_handles text[], p_oids oid[], p_wait_ms integer, p_owned boolean)
RETURNS TABLE (ord bigint, outcome text, detail text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
  v_outcome text[] := array_fill(NULL::text, ARRAY[cardinality(p_handles)]);
  v_detail text[] := array_fill(NULL::text, ARRAY[cardinality(p_handles)]);
  v_here oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  v_elsewhere text;
  v_says text;
  r record;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);
  FOR r IN SELECT q.*, h.fenced_at FROM mayfly.roles_of(p_handles, p_oids) q
           LEFT JOIN mayfly.handle h ON h.handle = p_handles[q.ord] ORDER BY q.ord, q.ours DESC
  LOOP
    IF NOT r.ours THEN
      v_outcome[r.ord] := 'foreign';
    ELSIF r.fenced_at IS NULL OR r.can_login THEN
      v_outcome[r.ord] := 'live';
    ELSIF NOT p_owned AND EXISTS (SELECT FROM pg_shdepend s
                                  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.role_oid) THEN
      v_outcome[r.ord] := 'owner';
    ELSE
      BEGIN
        SELECT string_agg(DISTINCT d.datname, ', ') INTO v_elsewhere
        FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
        WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.role_oid AND s.dbid <> v_here;
        IF EXISTS (SELECT FROM pg_prepared_xact() x WHERE x.ownerid = r.role_oid) THEN
          v_outcome[r.ord] := 'prepared';
          v_detail[r.ord] := mayfly.prepared_by(r.role_oid);
        ELSIF v_elsewhere IS NULL THEN
          EXECUTE format('DROP ROLE %I', r.role_name);
          -- The proof of this end is kept for a broker that crashes now and has lost the facts.
          UPDATE mayfly.handle h SET dropped_at = clock_timestamp(),
            keep_until = greatest(h.keep_until, clock_timestamp() + interval '10 minutes') WHERE h.handle = p_handles[r.ord];
          v_outcome[r.ord] := 'dropped';
        ELSE
          v_outcome[r.ord] := 'elsewhere';
          v_detail[r.ord] := v_elsewhere;
        END IF;
      EXCEPTION WHEN lock_not_available THEN
        v_outcome[r.ord] := 'locked';
        PERFORM mayfly.waited();
      WHEN dependent_objects_still_exist THEN
        GET STACKED DIAGNOSTICS v_says = PG_EXCEPTION_DETAIL;
        v_outcome[r.ord] := 'dependents';
        v_detail[r.ord] := left(v_says, 300);
      WHEN OTHERS THEN
        v_outcome[r.ord] := mayfly.failure(r.role_oid, SQLSTATE);
      END;
    END IF;
  END LOOP;
  -- Dropped by somebody else: known from now on, so that the row can be pruned.
  UPDATE mayfly.handle h SET dropped_at = clock_timestamp(),
    keep_until = greatest(h.keep_until, clock_timestamp() + interval '10 minutes')
  FROM unnest(p_handles) WITH ORDINALITY AS q (handle, ord)
  WHERE h.handle = q.handle AND v_outcome[q.ord] IS NULL AND h.role_oid IS NOT NULL AND h.dropped_at IS NULL
    AND h.fenced_at IS NOT NULL AND NOT EXISTS (SELECT FROM pg_authid a WHERE a.oid = h.role_oid);
  PERFORM mayfly.prune();
  RETURN QUERY SELECT q.ord, coalesce(v_outcome[q.ord], 'absent'), v_detail[q.ord]
    FROM unnest(p_handles) WITH ORDINALITY AS q (handle, ord) ORDER BY q.ord;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
