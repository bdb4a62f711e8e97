-- Part 6: the policies. Run by `prepare` as the superuser, never by the broker: it gets no right to execute these.

-- Who besides the owner, superusers and these templates would see fewer rows once row security is on.
CREATE OR REPLACE FUNCTION mayfly.others_on(p_table oid, p_templates text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT string_agg(DISTINCT CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE g.grantee::regrole::text END, ', ')
  FROM pg_class c CROSS JOIN LATERAL (
    SELECT x.grantee FROM aclexplode(c.relacl) x
    UNION SELECT x.grantee FROM pg_attribute a, aclexplode(a.attacl) x WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL
    UNION SELECT m.member FROM pg_auth_members m WHERE m.roleid IN ('pg_read_all_data'::regrole, 'pg_write_all_data'::regrole)
  ) AS g (grantee) LEFT JOIN pg_roles a ON a.oid = g.grantee
  WHERE c.oid = p_table AND g.grantee <> c.relowner AND NOT coalesce(a.rolsuper OR a.rolbypassrls, false)
    AND coalesce(a.rolname, '') <> ALL (p_templates)
$$;

-- Makes the policies what is declared: p_declared is [{template, schema, table, column, param, enable}].
-- Two policies for each template and table, both `column = param`: a permissive one, since without any no row is seen,
-- and a restrictive one, so that no other policy widens it. What is as declared already is not touched: each change takes
-- an exclusive lock on the table.
CREATE OR REPLACE FUNCTION mayfly.secure_rows(p_declared jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
  p record;
  v_table oid;
  v_name text;
  v_condition text;
  v_mark text;
  v_others text;
  v_enable boolean;
  v_found oid;
  v_kept oid[] := '{}';
  v_rows jsonb := '{}';
BEGIN
  FOR r IN SELECT d.schema, d."table", array_agg(DISTINCT d.template) AS templates, bool_or(coalesce(d.enable, false)) AS enable
           FROM jsonb_to_recordset(p_declared) AS d (template text, schema text, "table" text, enable boolean)
           GROUP BY d.schema, d."table" ORDER BY d.schema, d."table"
  LOOP
    v_name := format('%I.%I', r.schema, r."table");
    SELECT c.oid, NOT c.relrowsecurity INTO v_table, v_enable FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = r.schema AND c.relname = r."table" AND c.relkind IN ('r', 'p');
    IF v_table IS NULL THEN
      RAISE EXCEPTION 'row_security: % is not a table', v_name;
    END IF;
    FOR p IN SELECT t AS template FROM unnest(r.templates) t ORDER BY t LOOP
      v_condition := mayfly.row_condition(v_table, (
        SELECT jsonb_agg(d.value) FROM jsonb_array_elements(p_declared) d
        WHERE d.value ->> 'template' = p.template AND d.value ->> 'schema' = r.schema AND d.value ->> 'table' = r."table"));
      v_mark := 'mayfly:1:' || md5(v_condition) || ':';
      FOR v_found IN SELECT mayfly.secure_by(v_table, p.template, kind, v_condition, v_mark) FROM unnest(ARRAY['p', 'r']) kind LOOP
        v_kept := v_kept || v_found;
      END LOOP;
      v_rows := v_rows || jsonb_build_object(p.template,
        coalesce(v_rows -> p.template, '[]') || jsonb_build_object('oid', v_table::bigint, 'name', v_name));
    END LOOP;
    IF v_enable THEN
      v_others := mayfly.others_on(v_table, r.templates);
      IF v_others IS NOT NULL AND NOT r.enable THEN
        RAISE EXCEPTION 'row security is off on %, and others have rights on it, who might see nothing once it is on: %', v_name, v_others
          USING HINT = 'enable: true in row_security switches it on, with a policy that leaves the others what they have.';
      END IF;
      IF EXISTS (SELECT FROM pg_policy q WHERE q.polrelid = v_table AND q.oid <> ALL (v_kept)) THEN
        RAISE EXCEPTION 'row security is off on %, and it has policies that would wake: drop them, or switch it on first', v_name;
      END IF;
      IF v_others IS NOT NULL THEN
        EXECUTE format('CREATE POLICY mayfly_as_before ON %s AS PERMISSIVE FOR ALL TO PUBLIC USING (true) WITH CHECK (true)', v_table::regclass);
        EXECUTE format('COMMENT ON POLICY mayfly_as_before ON %s IS %L', v_table::regclass,
          'Made by mayfly target prepare when it switched row security on: all others see what they saw. Replace it as you like.');
      END IF;
      EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', v_table::regclass);
    END IF;
  END LOOP;
  -- Ours that are no longer declared. Row security itself is never switched off.
  FOR p IN SELECT q.polname, q.polrelid FROM pg_policy q JOIN pg_roles a ON q.polroles = ARRAY[a.oid]
           WHERE a.rolname ~ '^mayfly_t_' AND q.polname IN (a.rolname || '_p', a.rolname || '_r') AND q.oid <> ALL (v_kept) LOOP
    EXECUTE format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass);
  END LOOP;
  UPDATE mayfly.template t SET row_security = coalesce(v_rows -> t.name, '[]');
END
$$;

-- `column = param` of each item, with the param cast to the column's type: so an index on it serves, and what is no value of
-- that type is refused. Only types whose equality knows one spelling of a value.
CREATE OR REPLACE FUNCTION mayfly.row_condition(p_table oid, p_items jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  r record;
  v_type oid;
  v_exact boolean;
  v_all text;
BEGIN
  FOR r IN SELECT d."column", d.param FROM jsonb_to_recordset(p_items) AS d ("column" text, param text) ORDER BY 1, 2 LOOP
    SELECT a.atttypid, coalesce(c.collisdeterministic, true) INTO v_type, v_exact
    FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = p_table AND a.attname = r."column" AND a.attnum > 0 AND NOT a.attisdropped;
    IF v_type IS NULL THEN
      RAISE EXCEPTION 'row_security: % has no column %', p_table::regclass, r."column";
    END IF;
    IF NOT v_exact OR v_type <> ALL (ARRAY['text', 'varchar', 'uuid', 'int2', 'int4', 'int8', 'bool']::regtype[]::oid[]) THEN
      RAISE EXCEPTION 'row_security: the column % of % is of type %, which a param is not compared with', r."column",
        p_table::regclass, format_type(v_type, NULL)
        USING HINT = 'It must be text, varchar, uuid, smallint, integer, bigint or boolean, with a deterministic collation.';
    END IF;
    v_all := concat_ws(' AND ', v_all, format('%I = (SELECT mayfly.param(%L::text)::%s)', r."column", r.param,
      CASE v_type WHEN 'varchar'::regtype THEN 'text' ELSE format_type(v_type, NULL) END));
  END LOOP;
  RETURN v_all;
END
$$;

-- One policy, made or made anew unless it is as declared. kind: p(ermissive) or r(estrictive). Answers its OID.
CREATE OR REPLACE FUNCTION mayfly.secure_by(p_table oid, p_template text, p_kind text, p_condition text, p_mark text) RETURNS oid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_name text := p_template || '_' || p_kind;
  v_policy oid;
BEGIN
  SELECT q.oid INTO v_policy FROM pg_policy q JOIN pg_description d ON d.objoid = q.oid AND d.classoid = 'pg_policy'::regclass
  WHERE q.polrelid = p_table AND q.polname = v_name AND d.description = p_mark || mayfly.policy_digest(q.oid);
  IF v_policy IS NULL THEN
    EXECUTE format('DROP POLICY IF EXISTS %I ON %s', v_name, p_table::regclass);
    EXECUTE format('CREATE POLICY %I ON %s AS %s FOR ALL TO %I USING (%s) WITH CHECK (%s)', v_name, p_table::regclass,
      CASE p_kind WHEN 'r' THEN 'RESTRICTIVE' ELSE 'PERMISSIVE' END, p_template, p_condition, p_condition);
    SELECT q.oid INTO STRICT v_policy FROM pg_policy q WHERE q.polrelid = p_table AND q.polname = v_name;
    EXECUTE format('COMMENT ON POLICY %I ON %s IS %L', v_name, p_table::regclass, p_mark || mayfly.policy_digest(v_policy));
  END IF;
  RETURN v_policy;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
