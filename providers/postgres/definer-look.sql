-- Part 4: looking. Nothing here changes anything.

-- What the broker asks on every new connection: where it is, whose this is, what time it is.
CREATE OR REPLACE FUNCTION mayfly.status() RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'version', mayfly.version(),
    'installation', i.id,
    'epoch', i.epoch,
    'system_identifier', (SELECT c.system_identifier::text FROM pg_control_system() c),
    'server_version', current_setting('server_version_num')::integer,
    'in_recovery', pg_is_in_recovery(),
    'tenure', set_config('mayfly.tenure', coalesce(nullif(current_setting('mayfly.tenure', true), ''), i.tenure::text, ''), false),
    'clock_ms', extract(epoch FROM clock_timestamp()) * 1000)
  FROM (SELECT 1) AS one LEFT JOIN mayfly.installation i ON true
$$;

-- What a template is allowed, or no row.
CREATE OR REPLACE FUNCTION mayfly.allowance(p_template text)
RETURNS TABLE (max_seconds integer, max_total_seconds integer, max_live integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT t.max_seconds, t.max_total_seconds, t.max_live FROM mayfly.template t WHERE t.name = p_template
$$;

-- For the proof of an end: per ref what the registry knows, every role that could be meant, and how many backends
-- any of their OIDs still has. A dropped role is looked for by its OID too: its sessions may outlive it.
CREATE OR REPLACE FUNCTION mayfly.look(p_handles text[], p_oids oid[])
RETURNS TABLE (ord bigint, registered oid, minted boolean, fenced_at timestamptz, dropped_at timestamptz, roles jsonb, backends bigint)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.ord, h.role_oid, h.minted_at IS NOT NULL, h.fenced_at, h.dropped_at, coalesce(found.roles, '[]'),
         (SELECT count(*) FROM pg_stat_get_activity(NULL) s
          WHERE s.usesysid IN (h.role_oid, r.remembered) OR s.usesysid = ANY (found.oids)
             OR (s.usesysid = ANY (h.joined) AND s.backend_start < h.fenced_at))
  FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
  LEFT JOIN LATERAL (SELECT x.* FROM mayfly.handle x WHERE x.handle = r.handle OFFSET 0) h ON true
  LEFT JOIN (
    SELECT q.ord, array_agg(q.role_oid) FILTER (WHERE q.ours) AS oids, jsonb_agg(jsonb_build_object(
      'oid', q.role_oid::bigint, 'name', q.role_name, 'ours', q.ours, 'can_login', q.can_login, 'has_password', q.has_password,
      'memberships', (SELECT count(*) FROM pg_auth_members m
                       WHERE m.member = q.role_oid OR (m.roleid = q.role_oid AND m.member <> mayfly.self())))) AS roles
    FROM mayfly.roles_of(p_handles, p_oids) q GROUP BY q.ord
  ) AS found ON found.ord = r.ord
  ORDER BY r.ord
$$;

CREATE OR REPLACE FUNCTION mayfly.asleep_now() RETURNS integer[]
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN mayfly.asleep();

-- Roles of ours that are in the target, with their marks checked, in the order of their handles: those that are registered, and
-- those that only bear our mark and the name that goes with it (a registry that was restored). At most p_limit after p_after.
DROP FUNCTION IF EXISTS mayfly.list(uuid);
CREATE OR REPLACE FUNCTION mayfly.list(p_installation uuid, p_after text DEFAULT '', p_limit integer DEFAULT NULL)
RETURNS TABLE (handle text, grant_id uuid, installation uuid, role_oid oid, role_name name, template text,
               valid_until timestamptz, fenced boolean, can_login boolean, marked boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH registered AS MATERIALIZED (
    SELECT h.handle, h.grant_id, a.oid, a.rolname, h.template, a.rolvaliduntil, h.fenced_at IS NOT NULL AS fenced, a.rolcanlogin
    FROM mayfly.handle h JOIN pg_authid a ON a.oid = h.role_oid
    WHERE h.installation = p_installation AND h.dropped_at IS NULL AND h.handle > p_after ORDER BY h.handle LIMIT p_limit
  ), page AS MATERIALIZED (
    SELECT CASE WHEN count(*) >= p_limit THEN max(r.handle) ELSE 'mfy_g' END AS last FROM registered r
  ), named AS (
    -- No further than the page: all of them for each page would be too many.
    SELECT a.rolname::text AS handle, CASE WHEN a.rolname ~ '^mfy_[0-9a-f]{32}$' THEN substr(a.rolname, 5)::uuid END AS grant_id,
           a.oid, a.rolname, NULL::text AS template, a.rolvaliduntil, false AS fenced, a.rolcanlogin
    FROM pg_authid a
    WHERE a.rolname > greatest(p_after, 'mfy_')::name AND a.rolname ~ '^mfy_[0-9a-f]{32}$'
      AND a.rolname <= (SELECT p.last::name FROM page p)
      AND NOT EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = a.oid AND h.dropped_at IS NULL)
  ), found AS (
    SELECT r.*, coalesce(d.description = mayfly.mark(p_installation, r.grant_id), false) AS marked
    FROM (SELECT * FROM registered UNION ALL SELECT * FROM named) r
    LEFT JOIN pg_shdescription d ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass
  )
  SELECT f.handle, f.grant_id, p_installation, f.oid, f.rolname, f.template, f.rolvaliduntil, f.fenced, f.rolcanlogin, f.marked
  FROM found f WHERE f.marked OR EXISTS (SELECT FROM registered r WHERE r.oid = f.oid) ORDER BY f.handle LIMIT p_limit
$$;

-- What `check` judges: settings and rights that would let a credential outlive its end, or reach further than it says.
CREATE OR REPLACE FUNCTION mayfly.survey() RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'max_prepared_transactions', current_setting('max_prepared_transactions')::integer,
    'public_creates_in', (SELECT coalesce(jsonb_agg(n.nspname ORDER BY n.nspname), '[]') FROM pg_namespace n
                          WHERE EXISTS (SELECT FROM aclexplode(n.nspacl) x WHERE x.grantee = 0 AND x.privilege_type = 'CREATE')),
    'public_temp', (SELECT EXISTS (SELECT FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x
                                   WHERE x.grantee = 0 AND x.privilege_type = 'TEMPORARY')
                    FROM pg_database d WHERE d.datname = current_database()),
    'public_functions_in_mayfly', (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                                   WHERE n.nspname = 'mayfly' AND EXISTS (
                                     SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE x.grantee = 0)),
    'broker', (SELECT jsonb_build_object(
        'attributes', b.rolsuper OR b.rolcreatedb OR b.rolcreaterole OR b.rolreplication OR b.rolbypassrls,
        'member_of', (SELECT coalesce(jsonb_agg(m.roleid::regrole::text), '[]') FROM pg_auth_members m WHERE m.member = b.oid))
      FROM pg_authid b WHERE b.rolname = session_user),
    'templates', (SELECT coalesce(jsonb_object_agg(t.name, jsonb_build_object(
        'exists', a.oid IS NOT NULL,
        'attributes', a.rolcanlogin OR a.rolsuper OR a.rolcreatedb OR a.rolcreaterole OR a.rolreplication OR a.rolbypassrls,
        'member_of', (SELECT coalesce(jsonb_agg(m.roleid::regrole::text), '[]') FROM pg_auth_members m WHERE m.member = a.oid),
        'owns', (SELECT count(*) FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = a.oid AND s.deptype = 'o'),
        'creates_in', (SELECT coalesce(jsonb_agg(n.nspname ORDER BY n.nspname), '[]') FROM pg_namespace n
                       WHERE n.nspname !~ '^pg_temp|^pg_toast' AND EXISTS (
                         SELECT FROM aclexplode(n.nspacl) x WHERE x.grantee = a.oid AND x.privilege_type = 'CREATE')))), '{}')
      FROM mayfly.template t LEFT JOIN pg_authid a ON a.rolname = t.name))
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
