-- Mayfly on PostgreSQL, part 1: the schema, its private tables, and the helpers of the functions in the other parts
-- (definer-mint.sql, definer-end.sql, definer-look.sql). Applied by a superuser, again and again: an upgrade is the
-- same thing. `mayfly target prepare` prints all parts in order, with the grants to the broker's login.
--
-- Every function that the broker calls is SECURITY DEFINER with a fixed search_path, and takes the installation that
-- calls: a second broker on the same target (staging, restored from production's store) is a stranger.
-- Refusals have SQLSTATEs of class MF, with a text that holds no secret:
--   MF001 stranger      MF002 too late (mint_by)   MF003 ended before it was minted   MF004 template not allowed
--   MF005 life too long MF006 too many live        MF007 malformed argument           MF008 handle already used
--   MF009 not alive     MF020 params do not fit    MF021 rows not bounded

DO $$
BEGIN
  -- In the modes for managed services they belong to a role of their own that is none (prepare-managed.ts).
  IF current_setting('mayfly.managed', true) = 'on' THEN
    RETURN;
  END IF;
  IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'the definer functions must be made by a superuser' USING ERRCODE = '42501';
  END IF;
  -- Somebody who may create schemas could have made one of this name, to own what is put into it.
  IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
             WHERE n.nspname = 'mayfly' AND NOT r.rolsuper) THEN
    RAISE EXCEPTION 'a schema mayfly exists and is not owned by a superuser' USING ERRCODE = '42501';
  END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS mayfly;
REVOKE ALL ON SCHEMA mayfly FROM PUBLIC;
COMMENT ON SCHEMA mayfly IS 'Mayfly: the functions by which the credential broker mints roles and takes them back';

-- Who may work here. The epoch counts adoptions.
CREATE TABLE IF NOT EXISTS mayfly.installation (
  only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
  id uuid NOT NULL,
  epoch bigint NOT NULL DEFAULT 1,
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Which of the stores that call themselves by this id, and how far it has come (definer-hold.sql).
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS store text;
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS tenure uuid;
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS beat bigint NOT NULL DEFAULT 0;
-- Signs the marks. Who may comment on roles can copy a mark from one role to another, and make none up.
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS mark_key bytea NOT NULL
  DEFAULT sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'));

-- The allow-list. max_seconds bounds each step into the future, max_total_seconds all renewals together: they hold
-- even against somebody who stole the broker's login.
CREATE TABLE IF NOT EXISTS mayfly.template (
  name text PRIMARY KEY CHECK (name ~ '^mayfly_t_[a-z0-9_]{1,50}$'),
  max_seconds integer NOT NULL CHECK (max_seconds > 0),
  max_total_seconds integer NOT NULL CHECK (max_total_seconds >= max_seconds),
  max_live integer NOT NULL CHECK (max_live > 0)
);

-- One row per handle, made by `mint` or, as a tombstone, by a `fence` that came first: both take this row, so that a
-- mint that was overtaken by its own end finds it. (An advisory lock would not do: any login may hold any of those.)
CREATE TABLE IF NOT EXISTS mayfly.handle (
  handle text PRIMARY KEY CHECK (handle ~ '^mfy_[0-9a-f]{32}$'),
  grant_id uuid NOT NULL,
  installation uuid NOT NULL,
  template text,
  role_oid oid,
  minted_at timestamptz,
  valid_until timestamptz,
  -- The furthest that renewals may reach.
  not_after timestamptz,
  fenced_at timestamptz,
  dropped_at timestamptz,
  -- Roles that were members of this one: before PostgreSQL 15 a login may let others into itself.
  joined oid[] NOT NULL DEFAULT '{}',
  -- A row without a role is pruned after this: no mint for it can still be on its way.
  keep_until timestamptz NOT NULL
);
-- A target's statistics lag behind its grants. So whoever joins this table names its keys or goes row by row (LATERAL … OFFSET 0): a
-- plan that read all of it once per backend made a sweep take 10 ms at 2,000 rows.
CREATE INDEX IF NOT EXISTS handle_live ON mayfly.handle (template) WHERE role_oid IS NOT NULL AND fenced_at IS NULL;
CREATE INDEX IF NOT EXISTS handle_role ON mayfly.handle (role_oid) WHERE role_oid IS NOT NULL;
CREATE INDEX IF NOT EXISTS handle_prune ON mayfly.handle (keep_until) WHERE role_oid IS NULL OR dropped_at IS NOT NULL;
REVOKE ALL ON ALL TABLES IN SCHEMA mayfly FROM PUBLIC;

CREATE OR REPLACE FUNCTION mayfly.version() RETURNS integer
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN 3;

-- The owner of these functions. Where it is no superuser, it is a member of every role that it makes, with ADMIN.
CREATE OR REPLACE FUNCTION mayfly.self() RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT r.oid FROM pg_roles r WHERE r.rolname = current_user);

-- The comment on a role of ours: set in the transaction of its CREATE ROLE; a plain login cannot change it.
CREATE OR REPLACE FUNCTION mayfly.mark(p_installation uuid, p_grant_id uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
RETURN (SELECT 'mayfly:1:' || p_installation || ':' || p_grant_id || ':' || left(encode(sha256(i.mark_key || sha256(
          i.mark_key || convert_to(p_installation || ':' || p_grant_id, 'UTF8'))), 'hex'), 32)
        FROM mayfly.installation i);

-- A connection works for the tenure that it found first (here or in `status`): one that slept through an adoption does no more.
CREATE OR REPLACE FUNCTION mayfly.assert_owner(p_installation uuid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_tenure text := nullif(current_setting('mayfly.tenure', true), '');
  v_owner mayfly.installation;
BEGIN
  SELECT * INTO v_owner FROM mayfly.installation i WHERE i.id = p_installation;
  IF NOT FOUND OR v_tenure <> coalesce(v_owner.tenure::text, '') THEN
    RAISE EXCEPTION 'this target belongs to another installation' USING ERRCODE = 'MF001';
  END IF;
  IF v_tenure IS NULL AND v_owner.tenure IS NOT NULL THEN
    PERFORM set_config('mayfly.tenure', v_owner.tenure::text, false);
  END IF;
END
$$;

-- The roles that could be meant by each ref: by the registered OID, by the OID that the broker remembers, by name.
-- `ours` needs two witnesses: OID and name as registered, or the mark on the role. So a renamed role is found, a role
-- that only bears our name is not touched, and nobody fences an arbitrary role by sending its OID.
CREATE OR REPLACE FUNCTION mayfly.roles_of(p_handles text[], p_oids oid[])
RETURNS TABLE (ord bigint, role_oid oid, role_name name, ours boolean, can_login boolean, has_password boolean)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT r.ord, a.oid, a.rolname,
         coalesce(h.dropped_at IS NULL AND a.oid = h.role_oid AND a.rolname = r.handle, false)
           OR coalesce(d.description = mayfly.mark(coalesce(h.installation, i.id), substr(r.handle, 5)::uuid), false),
         a.rolcanlogin, a.rolpassword IS NOT NULL
  FROM ROWS FROM (unnest(p_handles), unnest(p_oids)) WITH ORDINALITY AS r (handle, remembered, ord)
  LEFT JOIN mayfly.handle h ON h.handle = r.handle
  LEFT JOIN mayfly.installation i ON true
  CROSS JOIN LATERAL (
    SELECT b.oid FROM pg_authid b WHERE b.oid = h.role_oid AND h.dropped_at IS NULL
    UNION SELECT b.oid FROM pg_authid b WHERE b.oid = r.remembered
    UNION SELECT b.oid FROM pg_authid b WHERE b.rolname = r.handle
  ) AS candidate
  JOIN pg_authid a ON a.oid = candidate.oid
  LEFT JOIN pg_shdescription d ON d.objoid = a.oid AND d.classoid = 'pg_authid'::regclass
  WHERE r.handle ~ '^mfy_[0-9a-f]{32}$'
$$;

-- Backends between the login check and the moment when their user shows in the statistics: a client can stay there
-- for as long as it likes (post_auth_delay), and wakes after the role is gone. All that shows of them is the lock on
-- their database. Whose they are cannot be seen.
CREATE OR REPLACE FUNCTION mayfly.asleep() RETURNS integer[]
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(array_agg(DISTINCT l.pid), '{}')
  FROM pg_locks l LEFT JOIN pg_stat_get_activity(NULL) s ON s.pid = l.pid
  WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.granted AND l.pid IS NOT NULL
    AND l.pid <> pg_backend_pid() AND s.usesysid IS NULL
    AND coalesce(s.backend_type, 'client backend') = 'client backend'
$$;

-- Rows whose role is gone, once nothing that is under way could still need them. A few at a time, never waiting.
CREATE OR REPLACE FUNCTION mayfly.prune() RETURNS integer
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_gone integer;
BEGIN
  DELETE FROM mayfly.handle WHERE handle IN (
    SELECT h.handle FROM mayfly.handle h
    WHERE (h.role_oid IS NULL OR h.dropped_at IS NOT NULL) AND h.keep_until < clock_timestamp()
    ORDER BY h.keep_until LIMIT 500 FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS v_gone = ROW_COUNT;
  RETURN v_gone;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
