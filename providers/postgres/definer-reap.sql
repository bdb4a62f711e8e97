-- Part 10: which roles may be disowned, where they hold something, and what else stands in the way of a drop.

-- Templates whose roles' tables and sequences are kept. Outlives the allow-list: their roles may end later.
CREATE TABLE IF NOT EXISTS mayfly.keeping (template text PRIMARY KEY);
REVOKE ALL ON mayfly.keeping FROM PUBLIC;

CREATE OR REPLACE FUNCTION mayfly.ending(p_handle text, p_oid oid) RETURNS TABLE (role_oid oid, state text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT q.role_oid, CASE WHEN NOT q.ours THEN 'foreign' WHEN h.fenced_at IS NULL OR q.can_login THEN 'live' ELSE 'ending' END
  FROM mayfly.roles_of(ARRAY[p_handle], ARRAY[p_oid]) q LEFT JOIN mayfly.handle h ON h.handle = p_handle
  ORDER BY q.ours LIMIT 1
$$;

-- Where a role holds something: {"oid", "keep", "databases": [other databases, by name]}. p_template: as the broker
-- remembers it, for a registry that was restored.
CREATE OR REPLACE FUNCTION mayfly.holdings(p_installation uuid, p_handle text, p_oid oid, p_template text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_role oid;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  SELECT e.role_oid INTO v_role FROM mayfly.ending(p_handle, p_oid) e WHERE e.state = 'ending';
  RETURN jsonb_build_object(
    'oid', v_role::bigint,
    'keep', EXISTS (SELECT FROM mayfly.keeping k WHERE k.template =
                      coalesce((SELECT h.template FROM mayfly.handle h WHERE h.handle = p_handle), p_template)),
    'databases', (SELECT coalesce(jsonb_agg(DISTINCT d.datname), '[]') FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
                  WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = v_role AND d.datname <> current_database()));
END
$$;

-- What ends the prepared transactions of this role, or that hold its row or what it owns: no session is left to end,
-- and a function cannot roll them back. NULL: there are none.
CREATE OR REPLACE FUNCTION mayfly.prepared_by(p_role oid) RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(
    CASE WHEN p.gid ~ '^[ -~]*$' THEN 'ROLLBACK PREPARED ' || quote_literal(p.gid)
         ELSE format('the output of SELECT format(''ROLLBACK PREPARED %%L'', gid) FROM pg_prepared_xacts WHERE transaction = ''%s''', p.transaction)
    END || format(' (on database %I)', d.datname), '; ')
  FROM pg_prepared_xact() p JOIN pg_database d ON d.oid = p.dbid
  WHERE p.ownerid = p_role OR EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_role AND a.xmax = p.transaction)
     OR EXISTS (SELECT FROM pg_lock_status() l WHERE l.virtualtransaction = '-1/' || p.transaction::text
                AND ((l.classid = 'pg_authid'::regclass AND l.objid = p_role)
                  OR (l.database = (SELECT x.oid FROM pg_database x WHERE x.datname = current_database())
                      AND EXISTS (SELECT FROM pg_class c WHERE c.oid = l.relation AND c.relowner = p_role))))
$$;

CREATE OR REPLACE FUNCTION mayfly.prepared(p_installation uuid, p_oid oid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  RETURN (SELECT mayfly.prepared_by(p_oid)
          WHERE EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid = p_oid) OR mayfly.minted(p_oid));
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
