-- Managed services, before part 1: what a role that is no superuser can see of pg_authid, which it may not read. All of it
-- but the passwords, and who holds a row: that a password was changed, or is set at all, does not show. `prepare` puts this view in the place
-- of pg_authid in the functions.
CREATE OR REPLACE VIEW mayfly.authid AS
  SELECT r.oid, r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
         r.rolbypassrls, r.rolconnlimit, NULL::text AS rolpassword, r.rolvaliduntil, NULL::xid AS xmax
  FROM pg_catalog.pg_roles r;
