-- Part 6: what the roles can really do, to be compared with what was granted. Nothing here changes anything, and no
-- secret, verifier or value of a setting leaves the database: names, counts, and words for what differs.

ALTER TABLE mayfly.handle ADD COLUMN IF NOT EXISTS connection_limit integer;
-- sha256 of the SCRAM verifier that `mint` set.
ALTER TABLE mayfly.handle ADD COLUMN IF NOT EXISTS verifier_digest bytea;
-- What the broker itself set on the role, as in pg_db_role_setting: {log_statement=all}.
ALTER TABLE mayfly.handle ADD COLUMN IF NOT EXISTS settings text[] NOT NULL DEFAULT '{}';

-- Things that depend on a role in one of these ways (pg_shdepend.deptype), in every database: {"count": n, "some": [text]}.
-- Temporary tables are left out: they end with their session.
CREATE OR REPLACE FUNCTION mayfly.dependents(p_role oid, p_types text, p_default_acl boolean) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object('count', count(*), 'some', coalesce(jsonb_agg(
    CASE WHEN f.elsewhere IS NOT NULL THEN 'something in the database ' || f.elsewhere
    ELSE coalesce(pg_describe_object(f.classid, f.objid, f.objsubid), 'something just dropped') END) FILTER (WHERE f.place <= 5), '[]'))
  FROM (
    SELECT s.classid, s.objid, s.objsubid, d.datname AS elsewhere,
           row_number() OVER (ORDER BY d.datname NULLS FIRST, s.classid, s.objid, s.objsubid) AS place
    FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid AND d.datname <> current_database()
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND strpos(p_types, s.deptype::text) > 0
      AND (s.classid = 'pg_default_acl'::regclass) = p_default_acl
      AND NOT (d.oid IS NULL AND s.classid = 'pg_class'::regclass AND EXISTS (
        SELECT FROM pg_class c WHERE c.oid = s.objid AND c.relpersistence = 't'))
  ) f
$$;

-- Attributes that no minted role and no template has.
CREATE OR REPLACE FUNCTION mayfly.attributes(p_role oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT to_jsonb(array_remove(ARRAY[
    CASE WHEN a.rolsuper THEN 'SUPERUSER' END, CASE WHEN a.rolcreaterole THEN 'CREATEROLE' END,
    CASE WHEN a.rolcreatedb THEN 'CREATEDB' END, CASE WHEN a.rolreplication THEN 'REPLICATION' END,
    CASE WHEN a.rolbypassrls THEN 'BYPASSRLS' END, CASE WHEN NOT a.rolinherit THEN 'NOINHERIT' END], NULL))
  FROM pg_authid a WHERE a.oid = p_role
$$;

-- Every right in the ACLs of this database and of shared objects that names the template itself.
CREATE OR REPLACE FUNCTION mayfly.rights_of(p_role oid) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  WITH here AS (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()),
  named AS (
    SELECT DISTINCT s.classid, s.objid FROM pg_shdepend s, here
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'a' AND s.dbid IN (0, here.oid)
  ), found AS (
    SELECT 'relation' AS kind, n.nspname AS schema, c.relname AS name, NULL AS sub, c.oid, x.privilege_type, x.is_grantable
    FROM named d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) x WHERE x.grantee = p_role
    UNION ALL
    SELECT 'column', n.nspname, c.relname, t.attname, c.oid, x.privilege_type, x.is_grantable
    FROM named d JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute t ON t.attrelid = c.oid AND t.attacl IS NOT NULL
    CROSS JOIN aclexplode(t.attacl) x WHERE x.grantee = p_role AND NOT t.attisdropped
    UNION ALL
    SELECT 'schema', n.nspname, NULL, NULL, n.oid, x.privilege_type, x.is_grantable
    FROM named d JOIN pg_namespace n ON d.classid = 'pg_namespace'::regclass AND n.oid = d.objid
    CROSS JOIN aclexplode(n.nspacl) x WHERE x.grantee = p_role
    UNION ALL
    SELECT 'function', n.nspname, p.oid::regprocedure::text, NULL, p.oid, x.privilege_type, x.is_grantable
    FROM named d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    JOIN pg_namespace n ON n.oid = p.pronamespace CROSS JOIN aclexplode(p.proacl) x WHERE x.grantee = p_role
    UNION ALL
    SELECT 'database', NULL, b.datname, NULL, b.oid, x.privilege_type, x.is_grantable
    FROM named d JOIN pg_database b ON d.classid = 'pg_database'::regclass AND b.oid = d.objid
    CROSS JOIN aclexplode(b.datacl) x WHERE x.grantee = p_role
    UNION ALL
    SELECT 'other', NULL, coalesce(pg_describe_object(d.classid, d.objid, 0), 'something just dropped'), NULL, d.objid, 'a right', false
    FROM named d WHERE d.classid NOT IN ('pg_class'::regclass, 'pg_namespace'::regclass, 'pg_proc'::regclass, 'pg_database'::regclass)
    UNION ALL
    SELECT DISTINCT 'other', NULL::name, 'the database ' || b.datname, NULL, b.oid, 'a right', false
    FROM pg_shdepend s JOIN pg_database b ON b.oid = s.dbid JOIN here ON here.oid <> b.oid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'a'
  )
  SELECT coalesce(jsonb_agg(jsonb_build_object('kind', f.kind, 'schema', f.schema, 'name', f.name, 'column', f.sub,
    'oid', f.oid::bigint, 'right', f.privilege_type, 'grantable', f.is_grantable)
    ORDER BY f.kind, f.schema, f.name, f.sub, f.privilege_type), '[]') FROM found f
$$;

-- What everybody may do with relations outside the system's own, in schemas that this role may use. The first thousand.
CREATE OR REPLACE FUNCTION mayfly.public_rights(p_role oid) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object('kind', f.kind, 'schema', f.nspname, 'name', f.relname, 'column', f.attname,
    'oid', f.oid::bigint, 'right', f.privilege_type, 'grantable', false) ORDER BY f.nspname, f.relname, f.attname, f.privilege_type), '[]')
  FROM (
    SELECT * FROM (
      SELECT 'relation' AS kind, n.nspname, c.relname, NULL::name AS attname, c.oid, x.privilege_type, n.oid AS schema_oid
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN aclexplode(c.relacl) x
      WHERE x.grantee = 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      UNION ALL
      SELECT 'column', n.nspname, c.relname, t.attname, c.oid, x.privilege_type, n.oid
      FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN aclexplode(t.attacl) x WHERE x.grantee = 0 AND NOT t.attisdropped
    ) e
    WHERE e.nspname !~ '^pg_' AND e.nspname <> 'information_schema' AND has_schema_privilege(p_role, e.schema_oid, 'USAGE')
    ORDER BY e.nspname, e.relname, e.attname, e.privilege_type LIMIT 1000
  ) f
$$;

-- Settings of one role that the broker did not make, and those of the broker's that are gone. `own`: an agent can have
-- made it by ALTER ROLE current_user SET; it may not for a name that the server does not know. Names only.
CREATE OR REPLACE FUNCTION mayfly.settings_of(p_role oid, p_ours text[]) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(jsonb_agg(jsonb_build_object('name', left(split_part(f.entry, '=', 1), 64), 'lost', f.lost,
      'own', NOT f.lost AND coalesce((SELECT g.context = 'user' FROM pg_settings g
                                      WHERE lower(g.name) = lower(split_part(f.entry, '=', 1))), false))
      ORDER BY f.entry), '[]')
  FROM (
    SELECT e.entry, false AS lost FROM pg_db_role_setting s CROSS JOIN unnest(s.setconfig) AS e (entry)
    WHERE s.setrole = p_role AND NOT (s.setdatabase = 0 AND e.entry = ANY (p_ours))
    UNION ALL
    SELECT o.entry, true FROM unnest(p_ours) AS o (entry)
    WHERE NOT EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setrole = p_role AND s.setdatabase = 0 AND o.entry = ANY (s.setconfig))
  ) f
$$;

CREATE OR REPLACE FUNCTION mayfly.inspect(p_installation uuid, p_handles text[], p_oids oid[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  RETURN jsonb_build_object(
    'refs', (
      SELECT coalesce(jsonb_agg(jsonb_build_object('registered', h.role_oid IS NOT NULL, 'template', h.template,
        'ended', h.fenced_at IS NOT NULL OR h.dropped_at IS NOT NULL,
        'role', CASE WHEN a.oid IS NOT NULL THEN jsonb_build_object(
          'name', a.rolname,
          'marked', coalesce(d.description = mayfly.mark(coalesce(h.installation, p_installation), substr(r.handle, 5)::uuid), false),
          'can_login', a.rolcanlogin,
          'attributes', mayfly.attributes(a.oid),
          'password', CASE WHEN a.rolpassword IS NULL THEN 'none' WHEN h.verifier_digest IS NULL THEN 'unknown'
                      WHEN sha256(convert_to(a.rolpassword, 'UTF8')) = h.verifier_digest THEN 'same' ELSE 'changed' END,
          'expiry', CASE WHEN h.valid_until IS NULL THEN 'unknown' WHEN coalesce(a.rolvaliduntil, 'infinity') = 'infinity' THEN 'none'
                    WHEN a.rolvaliduntil > h.valid_until THEN 'later' WHEN a.rolvaliduntil < h.valid_until THEN 'earlier' ELSE 'same' END,
          'connection_limit', a.rolconnlimit, 'connection_limit_granted', h.connection_limit,
          -- The options are columns only since PostgreSQL 16.
          'memberships', (SELECT coalesce(jsonb_agg(jsonb_build_object('role', p.rolname,
              'admin', m.admin_option, 'inherit', to_jsonb(m) -> 'inherit_option', 'set', to_jsonb(m) -> 'set_option')
              ORDER BY p.rolname, m.admin_option), '[]')
            FROM pg_auth_members m JOIN pg_authid p ON p.oid = m.roleid WHERE m.member = a.oid),
          'members', (SELECT coalesce(jsonb_agg(p.rolname ORDER BY p.rolname), '[]')
            FROM pg_auth_members m JOIN pg_authid p ON p.oid = m.member WHERE m.roleid = a.oid),
          'settings', mayfly.settings_of(a.oid, coalesce(h.settings, '{}')),
          'rights', mayfly.dependents(a.oid, 'ai', false), 'policies', mayfly.dependents(a.oid, 'r', false),
          'default_privileges', mayfly.dependents(a.oid, 'aio', true), 'owned', mayfly.dependents(a.oid, 'ot', false))
        END) ORDER BY r.ord), '[]')
      FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
      LEFT JOIN mayfly.handle h ON h.handle = r.handle
      LEFT JOIN pg_authid a ON a.oid = CASE WHEN h.role_oid IS NOT NULL THEN h.role_oid ELSE
        (SELECT q.role_oid FROM mayfly.roles_of(ARRAY[r.handle], ARRAY[r.remembered]) q WHERE q.ours LIMIT 1) END
      LEFT JOIN pg_shdescription d ON d.objoid = a.oid AND d.classoid = 'pg_authid'::regclass),
    'templates', (
      SELECT coalesce(jsonb_object_agg(t.name, jsonb_build_object('exists', a.oid IS NOT NULL,
        'attributes', coalesce(mayfly.attributes(a.oid), '[]') || CASE WHEN a.rolcanlogin THEN '["LOGIN"]' ELSE '[]' END::jsonb,
        'member_of', (SELECT coalesce(jsonb_agg(p.rolname ORDER BY p.rolname), '[]')
          FROM pg_auth_members m JOIN pg_authid p ON p.oid = m.roleid WHERE m.member = a.oid),
        'owned', mayfly.dependents(a.oid, 'ot', false),
        'rights', mayfly.rights_of(a.oid), 'public', mayfly.public_rights(a.oid))), '{}')
      FROM (SELECT DISTINCT h.template AS name FROM mayfly.handle h WHERE h.handle = ANY (p_handles) AND h.template IS NOT NULL) t
      LEFT JOIN pg_authid a ON a.rolname = t.name));
END
$$;

-- OIDs of declared functions, `"schema".name(types)`, read as `prepare` reads them; null where there is none.
CREATE OR REPLACE FUNCTION mayfly.functions_named(p_installation uuid, p_signatures text[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_oids bigint[] := '{}';
  v_one text;
  v_oid bigint;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  FOREACH v_one IN ARRAY p_signatures LOOP
    BEGIN
      v_oid := to_regprocedure(v_one)::oid::bigint;
    EXCEPTION WHEN syntax_error_or_access_rule_violation OR invalid_schema_name OR invalid_text_representation
      OR invalid_parameter_value THEN
      v_oid := NULL;
    END;
    v_oids := array_append(v_oids, v_oid);
  END LOOP;
  RETURN v_oids;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
