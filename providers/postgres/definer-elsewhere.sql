-- In the other databases of the cluster: no registry, one function. A role is known there by its mark and by being cut
-- off already (`fence`, in the target's own database, does that).

DO $$
BEGIN
  IF to_regclass('mayfly.handle') IS NOT NULL THEN
    RAISE EXCEPTION 'this database is itself a target';
  END IF;
  -- In the modes for managed services they belong to a role of their own that is none (prepare-managed.ts).
  IF current_setting('mayfly.managed', true) = 'on' THEN
    RETURN;
  END IF;
  IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'the definer functions must be made by a superuser' USING ERRCODE = '42501';
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
             WHERE n.nspname = 'mayfly' AND NOT r.rolsuper) THEN
    RAISE EXCEPTION 'a schema mayfly exists and is not owned by a superuser' USING ERRCODE = '42501';
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS mayfly;
REVOKE ALL ON SCHEMA mayfly FROM PUBLIC;
COMMENT ON SCHEMA mayfly IS 'Mayfly: removes what ended roles left in this database';

CREATE TABLE IF NOT EXISTS mayfly.installation (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  id uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1,
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);
REVOKE ALL ON ALL TABLES IN SCHEMA mayfly FROM PUBLIC;

CREATE OR REPLACE FUNCTION mayfly.assert_owner(p_installation uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM mayfly.installation i WHERE i.id = p_installation) THEN
    RAISE EXCEPTION 'this database belongs to another installation' USING ERRCODE = 'MF001';
  END IF;
END
$$;

CREATE OR REPLACE FUNCTION mayfly.ending(p_handle text, p_oid oid) RETURNS TABLE (role_oid oid, state text)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT a.oid, CASE
    WHEN p_handle !~ '^mfy_[0-9a-f]{32}$' THEN 'foreign'
    WHEN a.rolcanlogin OR a.rolsuper THEN 'live'
    WHEN d.description ~ ('^mayfly:1:[0-9a-f-]{36}:' || substr(p_handle, 5)::uuid || '(:[0-9a-f]{32})?$') THEN 'ending'
    -- A role of a pool has no handle of its own: whose it is now is decided in the target's own database.
    WHEN d.description = (SELECT 'mayfly:1:' || i.id || ':pool' FROM mayfly.installation i) THEN 'ending'
    ELSE 'foreign' END
  FROM pg_authid a LEFT JOIN pg_shdescription d ON d.objoid = a.oid AND d.classoid = 'pg_authid'::regclass
  WHERE a.oid = p_oid
$$;
