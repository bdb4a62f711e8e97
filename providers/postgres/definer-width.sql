-- Part 7: what everybody may do in this database, and so every minted role too. Names and counts; nothing is changed.

-- Functions that PUBLIC may call, in schemas that this role may use; those that run as their owner first, at most a thousand.
CREATE OR REPLACE FUNCTION mayfly.public_functions(p_role oid) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object('oid', f.oid::bigint, 'schema', f.nspname, 'name', f.name, 'definer', f.prosecdef,
    'as_superuser', f.prosecdef AND f.rolsuper, 'pinned', f.pinned, 'trusted', f.trusted) ORDER BY f.prosecdef DESC, f.name), '[]')
  FROM (
    SELECT p.oid, n.nspname, p.oid::regprocedure::text AS name, p.prosecdef, o.rolsuper,
           l.lanpltrusted OR l.lanname = 'internal' AS trusted,
           -- Unless a path names pg_temp, that comes first; a body that was parsed at its making looks for no names.
           p.prosqlbody IS NOT NULL OR EXISTS (SELECT FROM unnest(p.proconfig) c
             WHERE starts_with(c, 'search_path=') AND (strpos(c, 'pg_temp') > 0 OR c IN ('search_path=', 'search_path=""'))) AS pinned
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang JOIN pg_authid o ON o.oid = p.proowner
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
      AND has_schema_privilege(p_role, n.oid, 'USAGE')
      AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x WHERE x.grantee = 0)
    ORDER BY p.prosecdef DESC, name LIMIT 1000
  ) f
$$;

-- Things of the system's own that PUBLIC may use now and could not when the cluster was made.
CREATE OR REPLACE FUNCTION mayfly.opened() RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(f.name ORDER BY f.name), '[]') FROM (
    SELECT e.name FROM (
      SELECT 'pg_class'::regclass AS classid, c.oid, c.oid::regclass::text AS name, c.relacl AS acl FROM pg_class c
      WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relacl IS NOT NULL
      UNION ALL
      SELECT 'pg_proc'::regclass, p.oid, p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc p
      WHERE p.pronamespace = 'pg_catalog'::regnamespace
        AND EXISTS (SELECT FROM pg_init_privs i WHERE i.classoid = 'pg_proc'::regclass AND i.objoid = p.oid)
    ) e LEFT JOIN pg_init_privs i ON i.classoid = e.classid AND i.objoid = e.oid AND i.objsubid = 0
    WHERE EXISTS (SELECT FROM aclexplode(e.acl) x WHERE x.grantee = 0 AND NOT EXISTS (
      SELECT FROM aclexplode(i.initprivs) y WHERE y.grantee = 0 AND y.privilege_type = x.privilege_type))
    ORDER BY e.name LIMIT 100
  ) f
$$;

CREATE OR REPLACE FUNCTION mayfly.width(p_installation uuid, p_template text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_role oid := (SELECT a.oid FROM pg_authid a JOIN mayfly.template t ON t.name = a.rolname WHERE t.name = p_template);
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  RETURN jsonb_build_object(
    'relations', mayfly.public_rights(v_role),
    'functions', mayfly.public_functions(v_role),
    'opened', mayfly.opened(),
    'temp', (SELECT has_database_privilege(v_role, d.oid, 'TEMPORARY') FROM pg_database d WHERE d.datname = current_database()),
    'lo_compat', current_setting('lo_compat_privileges')::boolean,
    'lo_public', (SELECT count(*) FROM pg_largeobject_metadata m WHERE EXISTS (SELECT FROM aclexplode(m.lomacl) x WHERE x.grantee = 0)),
    'lo_create', (SELECT coalesce(jsonb_agg(p.oid::regprocedure::text ORDER BY p.proname), '[]') FROM pg_proc p
                  WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea')
                    AND has_function_privilege(v_role, p.oid, 'EXECUTE')),
    'languages', (SELECT coalesce(jsonb_agg(l.lanname ORDER BY l.lanname), '[]') FROM pg_language l
                  WHERE l.lanispl AND NOT l.lanpltrusted),
    'wrappers', (SELECT coalesce(jsonb_agg(w.fdwname ORDER BY w.fdwname), '[]') FROM pg_foreign_data_wrapper w
                 WHERE has_foreign_data_wrapper_privilege(v_role, w.oid, 'USAGE')),
    'servers', (SELECT coalesce(jsonb_agg(jsonb_build_object('name', s.srvname, 'mapped',
                  EXISTS (SELECT FROM pg_user_mappings m WHERE m.srvid = s.oid AND m.umuser = 0)) ORDER BY s.srvname), '[]')
                FROM pg_foreign_server s WHERE has_server_privilege(v_role, s.oid, 'USAGE')),
    'dblink', EXISTS (SELECT FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
                        AND d.classid = 'pg_proc'::regclass JOIN pg_proc p ON p.oid = d.objid
                      WHERE e.extname = 'dblink' AND p.proname = 'dblink_connect' AND has_function_privilege(v_role, p.oid, 'EXECUTE')
                        AND has_schema_privilege(v_role, p.pronamespace, 'USAGE')),
    -- Jobs of pg_cron run as whoever made them, and stay when the role goes.
    'jobs', (SELECT coalesce(jsonb_agg(p.oid::regprocedure::text ORDER BY p.oid::regprocedure::text), '[]')
             FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
               AND d.classid = 'pg_proc'::regclass JOIN pg_proc p ON p.oid = d.objid
             WHERE e.extname = 'pg_cron' AND p.proname IN ('schedule', 'schedule_in_database', 'alter_job')
               AND has_function_privilege(v_role, p.oid, 'EXECUTE') AND has_schema_privilege(v_role, p.pronamespace, 'USAGE')),
    -- Not current_setting: that fails where its reader may not see it.
    'jobs_in', (SELECT s.setting FROM pg_settings s JOIN pg_database d ON d.datname = s.setting
                WHERE s.name = 'cron.database_name' AND d.datname <> current_database()
                  AND has_database_privilege(v_role, d.oid, 'CONNECT')),
    -- What is made later. That PUBLIC may use functions and types is built in, and shows when they are there.
    'defaults', (SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_object('template', x.grantee = v_role, 'says', x.privilege_type || ' on new '
                   || CASE a.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
                      WHEN 'n' THEN 'schemas' ELSE 'large objects' END
                   || ' of ' || a.defaclrole::regrole::text || coalesce(' in ' || n.nspname, ''))), '[]')
                 FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace CROSS JOIN aclexplode(a.defaclacl) x
                 WHERE x.grantee = v_role OR (x.grantee = 0 AND a.defaclobjtype NOT IN ('f', 'T'))));
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
