-- Part 9: what an ended role leaves behind in the database where this stands. This file and definer-owners.sql stand in
-- the target's own database and in every other one that the target lists; what differs is `mayfly.ending`, which says
-- whose the role is.
-- Nothing here evaluates anything that an agent wrote: objects are dropped, taken over or stripped by catalog alone,
-- never rewritten. Each call is one bounded transaction; the broker calls until nothing is left.

-- Whether this can be kept at all: tables and sequences, unless a partition key would go on running the agent's code.
CREATE OR REPLACE FUNCTION mayfly.keepable(p_class oid, p_object oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT p_class = 'pg_class'::regclass AND EXISTS (
    SELECT FROM pg_class c WHERE c.oid = p_object AND c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM pg_partitioned_table p WHERE p.partrelid = c.oid AND (p.partexprs IS NOT NULL OR EXISTS (
        SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum = ANY (p.partattrs::int2[]) AND mayfly.minted(t.typowner)))))
$$;

-- Takes from a table everything that runs when somebody else uses it. Catalog changes alone: nothing is rewritten,
-- checked or computed, since that would run the agent's code with the rights of a superuser.
CREATE OR REPLACE FUNCTION mayfly.strip(p_table oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  -- Before 15 a column goes on needing the functions of the expression that was taken from it.
  v_expressions boolean := current_setting('server_version_num')::integer >= 150000;
  v_command text;
BEGIN
  FOR v_command IN
    SELECT format('DROP TRIGGER %I ON %s', t.tgname, p_table::regclass) FROM pg_trigger t
    WHERE t.tgrelid = p_table AND NOT t.tgisinternal AND t.tgparentid = 0
    UNION ALL
    SELECT format('DROP RULE %I ON %s', w.rulename, p_table::regclass) FROM pg_rewrite w
    WHERE w.ev_class = p_table AND w.rulename <> '_RETURN'
    UNION ALL
    SELECT format('DROP POLICY %I ON %s', p.polname, p_table::regclass) FROM pg_policy p WHERE p.polrelid = p_table
    UNION ALL
    SELECT format('ALTER TABLE %s NOT OF', p_table::regclass) FROM pg_class c WHERE c.oid = p_table AND c.reloftype <> 0
    UNION ALL
    SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', p_table::regclass, k.conname) FROM pg_constraint k
    WHERE k.conrelid = p_table AND k.coninhcount = 0 AND (k.contype = 'c' OR k.conindid IN (
      SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = p_table AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)))
    UNION ALL
    SELECT format('DROP INDEX %s', i.indexrelid::regclass) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = p_table AND NOT x.relispartition AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = p_table)
    UNION ALL
    SELECT format('ALTER TABLE %s ALTER COLUMN %I DROP %s', p_table::regclass, a.attname,
                  CASE a.attgenerated WHEN '' THEN 'DEFAULT' ELSE 'EXPRESSION' END)
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE d.adrelid = p_table AND (a.attgenerated = '' OR (a.attgenerated = 's' AND a.attinhcount = 0 AND v_expressions))
    UNION ALL
    -- A virtual column holds nothing; a column of a type or collation of an agent goes with that.
    SELECT format('ALTER TABLE %s DROP COLUMN %I', p_table::regclass, a.attname)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_collation c ON c.oid = a.attcollation
    WHERE a.attrelid = p_table AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0
      AND (a.attgenerated = 'v' OR (a.attgenerated = 's' AND NOT v_expressions) OR mayfly.minted(c.collowner) OR (mayfly.minted(t.typowner) AND NOT EXISTS (
        SELECT FROM pg_class r WHERE r.reltype IN (t.oid, t.typelem) AND r.relkind IN ('r', 'p'))))
  LOOP
    EXECUTE v_command;
  END LOOP;
END
$$;

-- Large objects: each takes a lock, so a million at once would fill the lock table. From that OID on, so many.
CREATE OR REPLACE FUNCTION mayfly.disown_blobs(p_role oid, p_from bigint, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_oids oid[];
BEGIN
  v_oids := ARRAY(SELECT m.oid FROM pg_largeobject_metadata m WHERE m.lomowner = p_role AND m.oid > p_from::oid
                  ORDER BY m.oid LIMIT p_limit);
  PERFORM lo_unlink(x.oid) FROM unnest(v_oids) AS x (oid);
  RETURN jsonb_build_object('outcome', CASE WHEN cardinality(v_oids) < p_limit THEN 'done' ELSE 'more' END,
    'gone', cardinality(v_oids), 'next', coalesce(v_oids[cardinality(v_oids)]::bigint, p_from), 'failed', '[]'::jsonb);
EXCEPTION WHEN lock_not_available THEN
  RETURN jsonb_build_object('outcome', 'done', 'gone', 0, 'next', p_from, 'failed', jsonb_build_array('a large object is locked'));
END
$$;

-- Everything else that is owned here, newest first within its kind. p_from: how many at the front were looked at in
-- this pass and are still there. Kept tables are stripped and stay.
CREATE OR REPLACE FUNCTION mayfly.disown_objects(p_role oid, p_keep boolean, p_from bigint, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_here oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  v_looked integer := 0;
  v_gone integer := 0;
  v_left bigint := p_from;
  v_failed text[] := '{}';
  v_bystanders text[];
  v_child oid;
  r record;
  o record;
BEGIN
  FOR r IN
    SELECT s.classid, s.objid, pg_describe_object(s.classid, s.objid, 0) AS says, c.relkind
    FROM pg_shdepend s LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'o' AND s.dbid = v_here
      AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_largeobject'::regclass)
    ORDER BY CASE WHEN c.relkind IN ('v', 'm') OR s.classid = 'pg_statistic_ext'::regclass THEN 1
                  WHEN c.relkind = 'S' THEN 3 WHEN c.oid IS NOT NULL THEN 2
                  WHEN s.classid = 'pg_proc'::regclass THEN 4 WHEN s.classid = 'pg_type'::regclass THEN 6
                  WHEN s.classid = 'pg_namespace'::regclass THEN 7 ELSE 5 END, s.objid DESC
    OFFSET p_from LIMIT p_limit
  LOOP
    v_looked := v_looked + 1;
    CONTINUE WHEN r.says IS NULL;
    BEGIN
      IF p_keep AND mayfly.keepable(r.classid, r.objid) THEN
        v_left := v_left + 1;
        IF r.relkind <> 'S' THEN
          PERFORM mayfly.strip(r.objid);
        END IF;
        CONTINUE;
      END IF;
      IF p_keep AND r.relkind = 'p' THEN
        FOR v_child IN SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = r.objid LOOP
          EXECUTE format('ALTER TABLE %s DETACH PARTITION %s', r.objid::regclass, v_child::regclass);
        END LOOP;
      END IF;
      IF p_keep AND r.classid = 'pg_namespace'::regclass AND EXISTS (
           SELECT FROM pg_class c WHERE c.relnamespace = r.objid AND mayfly.keepable('pg_class'::regclass, c.oid)) THEN
        v_left := v_left + 1;
        CONTINUE;
      END IF;
      v_bystanders := mayfly.bystanders(r.classid, r.objid, p_role, p_keep);
      IF cardinality(v_bystanders) > 0 THEN
        v_left := v_left + 1;
        v_failed := v_failed || format('%s is needed by %s', r.says, array_to_string(v_bystanders[1:3], ', '));
        CONTINUE;
      END IF;
      SELECT i.type, i.identity INTO o FROM pg_identify_object(r.classid, r.objid, 0) i;
      EXECUTE format('DROP %s %s CASCADE', CASE o.type
          WHEN 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER' WHEN 'statistics object' THEN 'STATISTICS'
          WHEN 'composite type' THEN 'TYPE' WHEN 'function' THEN 'ROUTINE' WHEN 'procedure' THEN 'ROUTINE'
          WHEN 'aggregate' THEN 'ROUTINE' ELSE upper(o.type) END, o.identity);
      v_gone := v_gone + 1;
    EXCEPTION WHEN lock_not_available THEN
      v_left := v_left + 1;
      v_failed := v_failed || format('%s is locked', r.says);
      -- A batch waits for one lock only.
      PERFORM set_config('lock_timeout', '1', true);
    WHEN insufficient_privilege THEN
      -- Where we are no superuser: it lies in a schema that the role may use no longer. `rest` needs no names.
      v_left := v_left + 1;
    WHEN OTHERS THEN
      v_left := v_left + 1;
      v_failed := v_failed || format('%s cannot be removed (SQLSTATE %s)', r.says, SQLSTATE);
    END;
  END LOOP;
  RETURN jsonb_build_object('outcome', CASE WHEN v_looked < p_limit THEN 'done' ELSE 'more' END,
    'gone', v_gone, 'next', v_left, 'failed', to_jsonb(v_failed));
END
$$;

-- Gives what is kept to the quarantine role, once nothing else is left here that the role owns. Rights that the agent
-- gave to others go.
CREATE OR REPLACE FUNCTION mayfly.disown_kept(p_installation uuid, p_role oid, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_here oid := (SELECT d.oid FROM pg_database d WHERE d.datname = current_database());
  v_name text := mayfly.quarantine_name(p_installation);
  v_gone integer := 0;
  v_looked integer := 0;
  v_failed text[] := '{}';
  v_kind text;
  v_thing text;
  v_grantee text;
  r record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_authid a WHERE a.rolname = v_name AND NOT (a.rolcanlogin OR a.rolsuper OR a.rolcreaterole
                   OR a.rolcreatedb OR a.rolreplication OR a.rolbypassrls)
                 AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE a.oid IN (m.roleid, m.member))) THEN
    RETURN jsonb_build_object('outcome', 'done', 'gone', 0, 'next', 0, 'failed', jsonb_build_array(
      format('the quarantine role %s is missing, has rights or has members (mayfly target prepare)', v_name)));
  END IF;
  FOR r IN
    SELECT s.classid, s.objid, pg_describe_object(s.classid, s.objid, 0) AS says, c.relkind, c.relacl, n.nspacl
    FROM pg_shdepend s LEFT JOIN pg_class c ON s.classid = 'pg_class'::regclass AND c.oid = s.objid
    LEFT JOIN pg_namespace n ON s.classid = 'pg_namespace'::regclass AND n.oid = s.objid
    WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'o' AND s.dbid = v_here
      AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass, 'pg_largeobject'::regclass)
    ORDER BY CASE WHEN c.oid IS NULL THEN 0 WHEN c.relkind = 'S' THEN 2 ELSE 1 END, s.objid
    LIMIT p_limit
  LOOP
    v_looked := v_looked + 1;
    IF NOT mayfly.keepable(r.classid, r.objid) AND r.classid <> 'pg_namespace'::regclass THEN
      v_failed := v_failed || format('%s is still there', r.says);
      EXIT;
    END IF;
    -- It went with its table.
    CONTINUE WHEN mayfly.owner_of(r.classid, r.objid) IS DISTINCT FROM p_role;
    BEGIN
      SELECT CASE i.type WHEN 'sequence' THEN 'SEQUENCE' WHEN 'schema' THEN 'SCHEMA' ELSE 'TABLE' END, i.identity
      INTO v_kind, v_thing FROM pg_identify_object(r.classid, r.objid, 0) i;
      IF v_kind = 'TABLE' THEN
        PERFORM mayfly.strip(r.objid);
      END IF;
      FOR v_grantee IN
        SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END
        FROM (SELECT e.grantee FROM aclexplode(coalesce(r.relacl, r.nspacl)) e
              UNION SELECT e.grantee FROM pg_attribute a, aclexplode(a.attacl) e WHERE v_kind = 'TABLE' AND a.attrelid = r.objid) x
        WHERE x.grantee <> p_role
      LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s CASCADE', v_kind, v_thing, v_grantee);
      END LOOP;
      EXECUTE format('ALTER %s %s OWNER TO %I', v_kind, v_thing, v_name);
      v_gone := v_gone + 1;
    EXCEPTION WHEN lock_not_available THEN
      v_failed := v_failed || format('%s is locked', r.says);
      EXIT;
    WHEN OTHERS THEN
      v_failed := v_failed || format('%s cannot be kept (SQLSTATE %s)', r.says, SQLSTATE);
      EXIT;
    END;
  END LOOP;
  RETURN jsonb_build_object('outcome', CASE WHEN v_looked < p_limit OR cardinality(v_failed) > 0 THEN 'done' ELSE 'more' END,
    'gone', v_gone, 'next', 0, 'failed', to_jsonb(v_failed));
END
$$;

-- Rights, default privileges, user mappings and names in policies. DROP OWNED also drops what is owned, unless somebody
-- else needs it: never where some of that is to be kept.
CREATE OR REPLACE FUNCTION mayfly.disown_rest(p_role oid, p_keep boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_failed text[] := '{}';
BEGIN
  IF p_keep THEN
    v_failed := ARRAY(
      SELECT pg_describe_object(s.classid, s.objid, 0) || ' is still there'
      FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid AND d.datname = current_database()
      WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = p_role AND s.deptype = 'o'
        AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass) LIMIT 3);
  END IF;
  IF cardinality(v_failed) = 0 THEN
    EXECUTE format('DROP OWNED BY %s', p_role::regrole);
  END IF;
  RETURN jsonb_build_object('outcome', 'done', 'gone', 0, 'next', 0, 'failed', to_jsonb(v_failed));
EXCEPTION WHEN lock_not_available THEN
  RETURN jsonb_build_object('outcome', 'done', 'gone', 0, 'next', 0, 'failed', jsonb_build_array('something is locked'));
WHEN dependent_objects_still_exist THEN
  RETURN jsonb_build_object('outcome', 'done', 'gone', 0, 'next', 0, 'failed', jsonb_build_array('what is left is needed by others'));
END
$$;

CREATE OR REPLACE FUNCTION mayfly.quarantine_name(p_installation uuid) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN 'mayfly_q_' || substr(replace(p_installation::text, '-', ''), 1, 8);

-- One bounded step for one fenced role. p_step: blobs | objects | kept | rest, in that order.
-- outcome: more | done | absent | live | foreign; gone: how many; next: where to go on; failed: what stayed, and why.
CREATE OR REPLACE FUNCTION mayfly.disown(
  p_installation uuid, p_system text, p_handle text, p_oid oid, p_step text, p_keep boolean, p_from bigint, p_limit integer,
  p_wait_ms integer)
RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  v_state text;
  v_role oid;
  v_joins boolean;
  v_keep boolean := p_keep;
  v_answer jsonb;
BEGIN
  PERFORM mayfly.assert_owner(p_installation);
  IF p_system IS DISTINCT FROM (SELECT c.system_identifier::text FROM pg_control_system() c) THEN
    RAISE EXCEPTION 'this is another cluster' USING ERRCODE = 'MF001';
  END IF;
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 1000 OR p_from IS NULL OR p_from < 0 OR p_keep IS NULL THEN
    RAISE EXCEPTION 'malformed bounds' USING ERRCODE = 'MF007';
  END IF;
  PERFORM set_config('lock_timeout', greatest(p_wait_ms, 1)::text, true);
  SELECT e.state, e.role_oid INTO v_state, v_role FROM mayfly.ending(p_handle, p_oid) e;
  IF v_state IS DISTINCT FROM 'ending' THEN
    RETURN jsonb_build_object('outcome', coalesce(v_state, 'absent'), 'gone', 0, 'next', 0, 'failed', '[]'::jsonb);
  END IF;
  -- In the target's own database what is kept is not the caller's to say; the others have no registry.
  IF to_regclass('mayfly.keeping') IS NOT NULL THEN
    v_keep := p_keep OR EXISTS (SELECT FROM mayfly.handle h JOIN mayfly.keeping k ON k.template = h.template WHERE h.handle = p_handle);
  END IF;
  v_joins := NOT pg_has_role(v_role, 'USAGE');
  PERFORM mayfly.join_to_drop(v_role);
  CASE p_step
    WHEN 'blobs' THEN v_answer := mayfly.disown_blobs(v_role, p_from, p_limit);
    WHEN 'objects' THEN v_answer := mayfly.disown_objects(v_role, v_keep, p_from, p_limit);
    WHEN 'kept' THEN v_answer := mayfly.disown_kept(p_installation, v_role, p_limit);
    WHEN 'rest' THEN v_answer := mayfly.disown_rest(v_role, v_keep);
  END CASE;
  IF v_joins THEN
    EXECUTE format('REVOKE %s FROM CURRENT_USER', v_role::regrole);
  END IF;
  RETURN v_answer;
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
