-- Part 5: params. `mint` writes what the grant was decided for; policies read it through the login of the session, which
-- no agent can change: not by SET ROLE, not by a setting, not by a function of the same name.

ALTER TABLE mayfly.template ADD COLUMN IF NOT EXISTS params jsonb NOT NULL DEFAULT '{}';
ALTER TABLE mayfly.template ADD COLUMN IF NOT EXISTS row_security jsonb NOT NULL DEFAULT '[]';
ALTER TABLE mayfly.template ADD COLUMN IF NOT EXISTS record_statements boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN mayfly.template.params IS 'name: string, integer, boolean or any. A mint must bring exactly these';
COMMENT ON COLUMN mayfly.template.row_security IS 'the tables whose rows these params bound; a mint looks whether they still do';

CREATE TABLE IF NOT EXISTS mayfly.param (
  role_oid oid NOT NULL,
  name text NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (role_oid, name)
);
REVOKE ALL ON ALL TABLES IN SCHEMA mayfly FROM PUBLIC;

-- A param of the session's own grant, as text. NULL for every other login, and from the grant's end on: a session that
-- outlived it sees no rows. In policies as (SELECT mayfly.param('tenant')), so that it is asked once a statement.
CREATE OR REPLACE FUNCTION mayfly.param(name text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.value
  FROM pg_authid a
  JOIN mayfly.handle h ON h.role_oid = a.oid AND h.handle = a.rolname
  JOIN mayfly.param p ON p.role_oid = a.oid AND p.name = $1
  WHERE a.rolname = session_user AND h.fenced_at IS NULL AND h.dropped_at IS NULL AND h.valid_until > clock_timestamp()
$$;

-- Params go with the role, whoever finds out that it is gone.
CREATE OR REPLACE FUNCTION mayfly.forget_params() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM mayfly.param p WHERE p.role_oid = OLD.role_oid;
  RETURN NULL;
END
$$;
CREATE OR REPLACE TRIGGER forget_params_dropped AFTER UPDATE OF dropped_at ON mayfly.handle
  FOR EACH ROW WHEN (NEW.dropped_at IS NOT NULL AND OLD.role_oid IS NOT NULL) EXECUTE FUNCTION mayfly.forget_params();
CREATE OR REPLACE TRIGGER forget_params_pruned AFTER DELETE ON mayfly.handle
  FOR EACH ROW WHEN (OLD.role_oid IS NOT NULL AND OLD.dropped_at IS NULL) EXECUTE FUNCTION mayfly.forget_params();

-- What a policy is now, so that a change of it shows.
CREATE OR REPLACE FUNCTION mayfly.policy_digest(p_policy oid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT md5(concat_ws('|', p.polrelid, p.polname, p.polcmd, p.polpermissive, p.polroles::text,
                       pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)))
  FROM pg_policy p WHERE p.oid = p_policy
$$;

-- Why the rows of this template are not bounded as `prepare` left them, a sentence each.
CREATE OR REPLACE FUNCTION mayfly.row_faults(p_template text) RETURNS SETOF text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN c.oid IS NULL THEN format('the table %s is gone or was made anew', s.name)
    WHEN NOT c.relrowsecurity THEN format('row security is off on %s', s.name)
    ELSE format('the policies of %s on %s are not those that were prepared', p_template, s.name) END
  FROM mayfly.template t
  CROSS JOIN LATERAL jsonb_to_recordset(t.row_security) AS s (oid oid, name text)
  LEFT JOIN pg_class c ON c.oid = s.oid
  WHERE t.name = p_template AND (c.oid IS NULL OR NOT c.relrowsecurity OR 2 <> (
    SELECT count(*) FROM pg_policy p JOIN pg_description d ON d.objoid = p.oid AND d.classoid = 'pg_policy'::regclass
    WHERE p.polrelid = c.oid AND p.polname IN (t.name || '_p', t.name || '_r')
      AND split_part(d.description, ':', 4) = mayfly.policy_digest(p.oid)))
$$;

-- Part of `mint`, in its transaction: the params of a new role.
CREATE OR REPLACE FUNCTION mayfly.bind(p_template text, p_role text, p_oid oid, p_params jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_template mayfly.template;
  v_fault text;
BEGIN
  SELECT * INTO STRICT v_template FROM mayfly.template t WHERE t.name = p_template;
  IF v_template.record_statements THEN
    EXECUTE format('ALTER ROLE %I SET log_statement = %L', p_role, 'all');
  END IF;
  IF p_params IS NULL OR jsonb_typeof(p_params) <> 'object' THEN
    RAISE EXCEPTION 'the params are not an object' USING ERRCODE = 'MF007';
  END IF;
  IF p_params = '{}' AND v_template.params = '{}' THEN
    RETURN;
  END IF;
  SELECT string_agg(coalesce(d.key, g.key), ', ') INTO v_fault
  FROM jsonb_each_text(v_template.params) d FULL JOIN jsonb_each(p_params) g ON g.key = d.key
  WHERE d.key IS NULL OR g.key IS NULL OR length(g.value #>> '{}') > 1000
     OR CASE d.value WHEN 'integer' THEN jsonb_typeof(g.value) <> 'number' OR (g.value #>> '{}') !~ '^-?[0-9]{1,16}$'
                     WHEN 'any' THEN jsonb_typeof(g.value) NOT IN ('string', 'number', 'boolean')
                     ELSE jsonb_typeof(g.value) <> d.value END;
  IF v_fault IS NOT NULL THEN
    -- Names that the caller may have made up: short, and never their values.
    RAISE EXCEPTION 'params that this template does not take, lacks or takes as another type: %', left(v_fault, 200)
      USING ERRCODE = 'MF020';
  END IF;
  SELECT string_agg(f, '; ') INTO v_fault FROM mayfly.row_faults(p_template) f;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION '%', v_fault USING ERRCODE = 'MF021', HINT = 'mayfly target prepare';
  END IF;
  -- A role of that OID may have been here before.
  DELETE FROM mayfly.param p WHERE p.role_oid = p_oid;
  INSERT INTO mayfly.param (role_oid, name, value) SELECT p_oid, g.key, g.value FROM jsonb_each_text(p_params) g;
END
$$;

-- What `check` judges of the rows of one template: besides the faults, ways around the policies.
CREATE OR REPLACE FUNCTION mayfly.rows_survey(p_template text) RETURNS jsonb
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE t AS (
    SELECT t.*, a.oid AS role_oid, a.rolbypassrls OR a.rolsuper AS bypasses
    FROM mayfly.template t JOIN pg_authid a ON a.rolname = t.name WHERE t.name = p_template
  ), secured AS (
    SELECT c.oid, c.relowner FROM t CROSS JOIN LATERAL jsonb_to_recordset(t.row_security) AS s (oid oid)
    JOIN pg_class c ON c.oid = s.oid
  ), above AS (
    -- Whatever is built on a secured table by rules: views, and views on views.
    SELECT s.oid FROM secured s
    UNION
    SELECT r.ev_class FROM above JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = above.oid
      AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid = d.objid
  ), kin AS (
    -- Its partitions, children and parents, which are read by policies of their own.
    SELECT s.oid FROM secured s
    UNION
    SELECT CASE WHEN i.inhrelid = kin.oid THEN i.inhparent ELSE i.inhrelid END
    FROM kin JOIN pg_inherits i ON kin.oid IN (i.inhrelid, i.inhparent)
  )
  SELECT jsonb_build_object(
    'params', t.params,
    'record_statements', t.record_statements,
    'expects', (SELECT coalesce(jsonb_agg(s.value), '[]') FROM jsonb_array_elements(t.row_security) s),
    'faults', (SELECT coalesce(jsonb_agg(f), '[]') FROM mayfly.row_faults(t.name) f),
    'bypasses', t.bypasses,
    'owns', (SELECT coalesce(jsonb_agg(s.oid::regclass::text), '[]') FROM secured s WHERE pg_has_role(t.role_oid, s.relowner, 'USAGE')),
    'views', (SELECT coalesce(jsonb_agg(c.oid::regclass::text ORDER BY c.oid), '[]')
              FROM above JOIN pg_class c ON c.oid = above.oid
              WHERE c.relkind IN ('v', 'm') AND has_any_column_privilege(t.role_oid, c.oid, 'SELECT, INSERT, UPDATE')
                AND (c.relkind = 'm' OR NOT EXISTS (
                  SELECT FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'security_invoker' AND o.option_value::boolean))),
    'kin', (SELECT coalesce(jsonb_agg(k.oid::regclass::text ORDER BY k.oid), '[]') FROM kin k
            WHERE k.oid NOT IN (SELECT s.oid FROM secured s)
              AND (has_any_column_privilege(t.role_oid, k.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(t.role_oid, k.oid, 'DELETE'))),
    'unbound_rights', (SELECT coalesce(jsonb_agg(s.oid::regclass::text ORDER BY s.oid), '[]') FROM secured s
                       WHERE has_table_privilege(t.role_oid, s.oid, 'TRUNCATE, TRIGGER')
                          OR has_any_column_privilege(t.role_oid, s.oid, 'REFERENCES')),
    'definer_functions', (SELECT coalesce(jsonb_agg(p.oid::regprocedure::text ORDER BY p.oid), '[]')
                          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                          WHERE p.prosecdef AND n.nspname NOT IN ('mayfly', 'pg_catalog', 'information_schema')
                            AND has_schema_privilege(t.role_oid, n.oid, 'USAGE') AND has_function_privilege(t.role_oid, p.oid, 'EXECUTE')))
  FROM t
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
