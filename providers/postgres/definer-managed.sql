-- Managed services: what the modes `createrole` and `pool` have besides the functions of the `definer` mode. The owner of
-- all of it is a role without LOGIN that has CREATEROLE and is no superuser.

-- Since PostgreSQL 16 the maker of a role is a member of it, and each change of a role costs in proportion to all that its
-- maker ever made and still has: at 1 000 a mint takes about twice as long, at 10 000 twenty times. Hence a cap over all
-- templates. Mints at the same moment do not see each other and may overshoot it by as many.
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS mode text NOT NULL DEFAULT 'definer';
ALTER TABLE mayfly.installation ADD COLUMN IF NOT EXISTS max_roles integer;

CREATE OR REPLACE FUNCTION mayfly.cap_roles() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_max integer := (SELECT i.max_roles FROM mayfly.installation i);
BEGIN
  IF (SELECT count(*) FROM (SELECT FROM mayfly.handle h WHERE h.role_oid IS NOT NULL AND h.dropped_at IS NULL
                            LIMIT v_max) AS there) >= v_max THEN
    RAISE EXCEPTION 'this target bears at most % minted roles at once (max_roles)', v_max USING ERRCODE = 'MF006';
  END IF;
  RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER cap_roles BEFORE INSERT ON mayfly.handle
  FOR EACH ROW WHEN (NEW.minted_at IS NOT NULL) EXECUTE FUNCTION mayfly.cap_roles();

-- What `check` asks in these modes.
CREATE OR REPLACE FUNCTION mayfly.survey_managed() RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT jsonb_build_object(
    'mode', i.mode,
    'owner', r.rolname,
    'superuser', r.rolsuper,
    'login', r.rolcanlogin,
    'createrole', r.rolcreaterole,
    'signals', pg_has_role('pg_signal_backend', 'USAGE'),
    'reads_stats', pg_has_role('pg_read_all_stats', 'USAGE'),
    -- Who may act as the owner, and so do what its functions would refuse.
    'members', (SELECT coalesce(jsonb_agg(DISTINCT m.member::regrole::text), '[]') FROM pg_auth_members m
                JOIN pg_roles x ON x.oid = m.member WHERE m.roleid = r.oid AND NOT x.rolsuper),
    'uses_templates', (SELECT coalesce(jsonb_agg(t.name), '[]') FROM mayfly.template t JOIN pg_roles x ON x.rolname = t.name
                       WHERE pg_has_role(x.oid, 'USAGE')),
    'lacks_templates', (SELECT coalesce(jsonb_agg(t.name), '[]') FROM mayfly.template t JOIN pg_roles x ON x.rolname = t.name
                        WHERE current_setting('server_version_num')::integer >= 160000
                          AND NOT pg_has_role(x.oid, 'MEMBER WITH ADMIN OPTION')),
    'roles', (SELECT count(*) FROM mayfly.handle h WHERE h.role_oid IS NOT NULL AND h.dropped_at IS NULL),
    'max_roles', i.max_roles)
  FROM pg_roles r LEFT JOIN mayfly.installation i ON true WHERE r.rolname = current_user
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
