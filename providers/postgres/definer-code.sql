-- Part 11: work that began before an end and goes on with the ended role's rights. A call inside a function, a cursor or
-- a view that belongs to the role is not asked for its rights again, whoever runs it: an accomplice with another grant
-- goes on reading. It cannot be seen who is inside a function, nor a function that was dropped meanwhile. So, for a role
-- that owned anything or could create: every transaction of another role of ours that is older than the end is ended.

ALTER TABLE mayfly.handle ADD COLUMN IF NOT EXISTS code_at timestamptz;
ALTER TABLE mayfly.handle ADD COLUMN IF NOT EXISTS code_in oid[] NOT NULL DEFAULT '{}';

-- The databases in which this role may have had code of its own: where it owns a relation or a function, and this one
-- if its template, PUBLIC or itself may create here.
CREATE OR REPLACE FUNCTION mayfly.code_in(p_role oid, p_template text) RETURNS oid[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT ARRAY(
    SELECT s.dbid FROM pg_shdepend s
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'o'
      AND s.classid IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_namespace'::regclass)
    UNION
    SELECT d.oid FROM pg_database d, (SELECT ARRAY[0, p_role, (SELECT t.oid FROM pg_authid t WHERE t.rolname = p_template)]::oid[]) AS g (ids)
    WHERE d.datname = current_database()
      AND (EXISTS (SELECT FROM aclexplode(d.datacl) x WHERE x.grantee = ANY (g.ids) AND x.privilege_type = 'CREATE')
           OR EXISTS (SELECT FROM pg_namespace n WHERE n.nspname !~ '^pg_(temp|toast)' AND (n.nspowner = ANY (g.ids)
             OR EXISTS (SELECT FROM aclexplode(n.nspacl) x WHERE x.grantee = ANY (g.ids) AND x.privilege_type = 'CREATE')))))
$$;

-- When a backend's transaction began; NULL without one. With track_activities off that is not known.
CREATE OR REPLACE FUNCTION mayfly.began(p_state text, p_xact timestamptz, p_backend timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN CASE p_state WHEN 'disabled' THEN p_backend ELSE p_xact END;

-- Ends those transactions. After `unlink`, whose commit is the end meant. Answers how many were told to end: to be
-- called until none is. Sessions that are not ours are never ended.
CREATE OR REPLACE FUNCTION mayfly.evict(p_installation uuid, p_oids oid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_told integer;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  -- On a standby it is there already.
  IF NOT pg_is_in_recovery() THEN
    UPDATE mayfly.handle h SET code_at = clock_timestamp(), code_in = c.code_in
    FROM (SELECT x.handle, mayfly.code_in(x.role_oid, x.template) AS code_in FROM mayfly.handle x
          WHERE x.role_oid = ANY (p_oids) AND x.fenced_at IS NOT NULL AND x.code_at IS NULL AND x.dropped_at IS NULL) c
    WHERE h.handle = c.handle AND cardinality(c.code_in) > 0;
  END IF;
  SELECT count(pg_terminate_backend(s.pid)) INTO v_told
  FROM pg_stat_get_activity(NULL) s JOIN LATERAL (SELECT FROM mayfly.handle x WHERE x.role_oid = s.usesysid OFFSET 0) o ON true
  WHERE EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = ANY (p_oids) AND s.datid = ANY (h.code_in)
                AND mayfly.began(s.state, s.xact_start, s.backend_start) < h.code_at);
  RETURN v_told;
END
$$;

-- Per handle: whether it must still be asked (`evict`), how many older transactions of ours go on, and of strangers: those
-- that hold a lock on a relation of the role are inside it, the others may be.
CREATE OR REPLACE FUNCTION mayfly.inside(p_handles text[])
RETURNS TABLE (handle text, code boolean, unasked boolean, ours bigint, strangers bigint, others bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT h.handle, h.code_at IS NOT NULL,
         h.code_at IS NULL AND h.dropped_at IS NULL AND cardinality(mayfly.code_in(h.role_oid, h.template)) > 0,
         count(s.pid) FILTER (WHERE o.handle IS NOT NULL),
         count(s.pid) FILTER (WHERE o.handle IS NULL AND l.held),
         count(s.pid) FILTER (WHERE o.handle IS NULL AND NOT l.held)
  FROM mayfly.handle h
  LEFT JOIN pg_stat_get_activity(NULL) s ON s.datid = ANY (h.code_in)
    AND mayfly.began(s.state, s.xact_start, s.backend_start) < h.code_at
    AND s.backend_type = 'client backend'
    AND s.usesysid <> (SELECT b.oid FROM pg_authid b WHERE b.rolname = session_user)
  LEFT JOIN LATERAL (SELECT x.handle FROM mayfly.handle x WHERE x.role_oid = s.usesysid OFFSET 0) o ON true
  LEFT JOIN LATERAL (SELECT EXISTS (
    SELECT FROM pg_lock_status() k JOIN pg_class c ON c.oid = k.relation
    WHERE s.pid IS NOT NULL AND k.pid = s.pid AND k.granted AND c.relowner = h.role_oid
      AND k.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())) AS held) l ON true
  WHERE h.handle = ANY (p_handles)
  GROUP BY h.handle
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
