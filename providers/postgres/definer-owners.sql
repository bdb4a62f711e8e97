-- Part 8: whose an object is, and who would lose something with it. In the target's own database and in the others.

-- Minted by us, in whatever life: only an administrator can write the mark.
CREATE OR REPLACE FUNCTION mayfly.minted(p_role oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (SELECT FROM pg_shdescription d
                 WHERE d.objoid = p_role AND d.classoid = 'pg_authid'::regclass AND d.description LIKE 'mayfly:1:%')
$$;

-- Ended as well: what such a role made may go together with what this one made.
CREATE OR REPLACE FUNCTION mayfly.ended(p_role oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT mayfly.minted(p_role) AND EXISTS (SELECT FROM pg_authid a WHERE a.oid = p_role AND NOT a.rolcanlogin)
$$;

-- To drop what a role owns takes its rights, which a superuser has and another owner of these functions gives itself.
CREATE OR REPLACE FUNCTION mayfly.join_to_drop(p_role oid) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT pg_has_role(p_role, 'USAGE') THEN
    EXECUTE format('GRANT %s TO CURRENT_USER', p_role::regrole)
      || CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN ' WITH INHERIT TRUE, SET FALSE' ELSE '' END;
  END IF;
END
$$;

-- The owner of an object, or of the table or type that a part without owner belongs to. NULL: not known.
CREATE OR REPLACE FUNCTION mayfly.owner_of(p_class oid, p_object oid) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE p_class
    WHEN 'pg_class'::regclass THEN (SELECT c.relowner FROM pg_class c WHERE c.oid = p_object)
    WHEN 'pg_type'::regclass THEN (SELECT t.typowner FROM pg_type t WHERE t.oid = p_object)
    WHEN 'pg_proc'::regclass THEN (SELECT p.proowner FROM pg_proc p WHERE p.oid = p_object)
    WHEN 'pg_operator'::regclass THEN (SELECT o.oprowner FROM pg_operator o WHERE o.oid = p_object)
    WHEN 'pg_opclass'::regclass THEN (SELECT o.opcowner FROM pg_opclass o WHERE o.oid = p_object)
    WHEN 'pg_opfamily'::regclass THEN (SELECT o.opfowner FROM pg_opfamily o WHERE o.oid = p_object)
    WHEN 'pg_collation'::regclass THEN (SELECT c.collowner FROM pg_collation c WHERE c.oid = p_object)
    WHEN 'pg_conversion'::regclass THEN (SELECT c.conowner FROM pg_conversion c WHERE c.oid = p_object)
    WHEN 'pg_namespace'::regclass THEN (SELECT n.nspowner FROM pg_namespace n WHERE n.oid = p_object)
    WHEN 'pg_statistic_ext'::regclass THEN (SELECT s.stxowner FROM pg_statistic_ext s WHERE s.oid = p_object)
    WHEN 'pg_ts_dict'::regclass THEN (SELECT d.dictowner FROM pg_ts_dict d WHERE d.oid = p_object)
    WHEN 'pg_ts_config'::regclass THEN (SELECT c.cfgowner FROM pg_ts_config c WHERE c.oid = p_object)
    WHEN 'pg_foreign_server'::regclass THEN (SELECT s.srvowner FROM pg_foreign_server s WHERE s.oid = p_object)
    WHEN 'pg_rewrite'::regclass THEN (SELECT c.relowner FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid = p_object)
    WHEN 'pg_trigger'::regclass THEN (SELECT c.relowner FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE t.oid = p_object)
    WHEN 'pg_policy'::regclass THEN (SELECT c.relowner FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.oid = p_object)
    WHEN 'pg_attrdef'::regclass THEN (SELECT c.relowner FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid WHERE d.oid = p_object)
    WHEN 'pg_publication_rel'::regclass THEN (SELECT c.relowner FROM pg_publication_rel p JOIN pg_class c ON c.oid = p.prrelid WHERE p.oid = p_object)
    WHEN 'pg_constraint'::regclass THEN (SELECT coalesce(c.relowner, t.typowner) FROM pg_constraint k
      LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid WHERE k.oid = p_object)
    -- A cast cannot outlive either of its types.
    WHEN 'pg_cast'::regclass THEN (SELECT CASE WHEN mayfly.ended(s.typowner) THEN s.typowner ELSE t.typowner END FROM pg_cast k
      JOIN pg_type s ON s.oid = k.castsource JOIN pg_type t ON t.oid = k.casttarget WHERE k.oid = p_object)
    WHEN 'pg_default_acl'::regclass THEN (SELECT d.defaclrole FROM pg_default_acl d WHERE d.oid = p_object)
  END
$$;

-- What DROP … CASCADE of this object would take from somebody who has not ended (or, where tables are kept, of kept
-- tables). Empty: CASCADE is safe. A part of a table counts as the table: rather too much than too little.
CREATE OR REPLACE FUNCTION mayfly.bystanders(p_class oid, p_object oid, p_role oid, p_keep boolean) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH RECURSIVE reached (classid, objid) AS (
    SELECT p_class, p_object
    UNION
    SELECT d.classid, d.objid FROM reached r JOIN pg_depend d ON d.refclassid = r.classid AND d.refobjid = r.objid
  )
  SELECT coalesce(array_agg(pg_describe_object(r.classid, r.objid, 0)), '{}') FROM reached r
  WHERE (r.classid, r.objid) <> (p_class, p_object)
    -- A part that the server made belongs to the whole, whoever owns it (constructors of a range: the first superuser).
    AND NOT EXISTS (SELECT FROM pg_depend i JOIN reached w ON i.refclassid = w.classid AND i.refobjid = w.objid
                    WHERE i.classid = r.classid AND i.objid = r.objid AND i.deptype = 'i')
    AND ((mayfly.owner_of(r.classid, r.objid) IS DISTINCT FROM p_role
          AND mayfly.ended(mayfly.owner_of(r.classid, r.objid)) IS NOT TRUE)
         OR (p_keep AND r.classid = 'pg_class'::regclass
             AND EXISTS (SELECT FROM pg_class c WHERE c.oid = r.objid AND c.relkind IN ('r', 'p'))))
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM PUBLIC;
