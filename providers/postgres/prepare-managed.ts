import { part } from './prepare-sql.ts';
import { block, identifier, literal } from './quote.ts';
import type { PostgresEntitlement, PostgresTarget } from './schema.ts';

/** What both kinds of servers have in common, as SQL. */
interface SharedSql {
  readonly functions: readonly string[];
  readonly brokerFunctions: readonly string[];
  readonly rightDatabase: string;
  readonly installation: string;
  readonly allowList: string;
  readonly rights: readonly string[];
}

export const defaultOwner = 'mayfly_owner';
const defaultMaxRoles = 500;
const defaultPoolSize = 20;

const managedFunctions = ['survey_managed()'];
const poolFunctions = [
  'mint_pooled(uuid, text, uuid, text, text, timestamptz, timestamptz, timestamptz, integer)',
  'survey_pool()',
];

/** A login of an earlier configuration keeps nothing. In a block that declares `r record`. */
export const forgetLogins = `FOR r IN SELECT DISTINCT x.grantee::regrole AS login
           FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) x
           WHERE n.nspname = 'mayfly' AND x.grantee <> 0 AND x.grantee <> p.proowner LOOP
    EXECUTE format('REVOKE ALL ON ALL FUNCTIONS IN SCHEMA mayfly FROM %s', r.login);
    EXECUTE format('REVOKE ALL ON SCHEMA mayfly FROM %s', r.login);
  END LOOP;`;

/**
 * The same functions, for an owner that is no superuser: it may not read pg_authid, nor lock rows there, nor make the
 * schema that is made for it.
 */
export function withoutSuperuser(sql: string): string {
  return sql
    .replaceAll(/\b(FROM|JOIN) pg_authid\b/g, '$1 mayfly.authid')
    .replaceAll(/(\bFROM mayfly\.authid\b[^;]*?) FOR (?:NO KEY )?UPDATE(?: SKIP LOCKED)?/g, '$1')
    .replace('CREATE SCHEMA IF NOT EXISTS mayfly;', '');
}

/**
 * The SQL that makes a target of a managed service ready, for its administrator: no superuser, but a role with
 * CREATEROLE that owns the database and what the entitlements name, and may grant pg_signal_backend. One transaction.
 */
export function prepareManagedSql(
  config: PostgresTarget,
  entitlements: readonly { readonly config: PostgresEntitlement }[],
  shared: SharedSql,
  brokerVerifier: string | undefined,
): string {
  const owner = identifier(config.owner ?? defaultOwner);
  const pooled = config.mode === 'pool';
  const functions = ['definer-managed.sql', ...(pooled ? ['definer-pool.sql', 'definer-pool-end.sql'] : [])];
  const callable = [...shared.brokerFunctions, ...managedFunctions, ...(pooled ? poolFunctions : [])];
  return [
    `-- Mayfly: prepares the database ${config.database} as a target, in the mode ${config.mode}. Run as the administrator, connected to it.`,
    "BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL lock_timeout = '10s';\nSET LOCAL mayfly.managed = 'on';",
    shared.rightDatabase,
    makeOwner(config.owner ?? defaultOwner),
    `SET LOCAL ROLE ${owner};`,
    part('definer-authid.sql'),
    ...[...shared.functions, ...functions.map(part)].map(withoutSuperuser),
    shared.installation,
    mode(config),
    'RESET ROLE;',
    login(config, brokerVerifier),
    shared.allowList,
    ...shared.rights,
    ...[...poolSizes(entitlements).keys()].map((template) => lend(template, owner)),
    `SET LOCAL ROLE ${owner};`,
    `GRANT USAGE ON SCHEMA mayfly TO ${identifier(config.user)};`,
    `GRANT EXECUTE ON FUNCTION ${callable.map((each) => `mayfly.${each}`).join(', ')} TO ${identifier(config.user)};`,
    ...(pooled ? [...poolSizes(entitlements)].map(([template, size]) => pool(template, size)) : []),
    'RESET ROLE;',
    leaveOwner(owner),
    'COMMIT;\n',
  ].join('\n\n');
}

/** The owner of everything; the administrator becomes it for this transaction. */
export function makeOwner(name: string): string {
  const owner = identifier(name);
  return block(`DECLARE
  v_since_16 boolean := current_setting('server_version_num')::integer >= 160000;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(name)}) THEN
    CREATE ROLE ${owner} NOLOGIN INHERIT CREATEROLE;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(name)}
             AND (rolsuper OR rolcanlogin OR rolcreatedb OR rolreplication OR rolbypassrls OR NOT rolcreaterole)) THEN
    RAISE EXCEPTION 'the role % must have CREATEROLE, no LOGIN and nothing more', ${literal(name)};
  END IF;
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    EXECUTE 'GRANT ${owner.replaceAll("'", "''")} TO CURRENT_USER' || CASE WHEN v_since_16 THEN ' WITH INHERIT TRUE, SET TRUE' ELSE '' END;
  END IF;
  -- Without it no session could be ended.
  IF NOT pg_has_role(${literal(name)}, 'pg_signal_backend', 'USAGE') THEN
    GRANT pg_signal_backend TO ${owner};
  END IF;
  IF NOT pg_has_role(${literal(name)}, 'pg_read_all_stats', 'USAGE') THEN
    BEGIN
      GRANT pg_monitor TO ${owner};
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'pg_monitor could not be granted to %: connected standbys will not show', ${literal(name)};
    END;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'mayfly') THEN
    CREATE SCHEMA mayfly AUTHORIZATION ${owner};
  END IF;
  -- Somebody who may create schemas could have made one of this name, to own what is put into it.
  IF (SELECT nspowner FROM pg_namespace WHERE nspname = 'mayfly') <> (SELECT oid FROM pg_roles WHERE rolname = ${literal(name)}) THEN
    RAISE EXCEPTION 'a schema mayfly exists and does not belong to %', ${literal(name)};
  END IF;
END`);
}

export function leaveOwner(owner: string): string {
  return block(`BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    REVOKE ${owner} FROM CURRENT_USER;
  END IF;
END`);
}

function mode(config: PostgresTarget): string {
  const cap = config.mode === 'pool' ? 'NULL' : String(config.max_roles ?? defaultMaxRoles);
  return block(`BEGIN
  -- What is under way was made the other way, and can only be ended that way.
  IF EXISTS (SELECT FROM mayfly.installation i WHERE i.mode NOT IN ('definer', ${literal(config.mode)}))
     AND EXISTS (SELECT FROM mayfly.handle h WHERE h.role_oid IS NOT NULL AND h.dropped_at IS NULL) THEN
    RAISE EXCEPTION 'grants of another mode are alive here: end them first';
  END IF;
  UPDATE mayfly.installation SET mode = ${literal(config.mode)}, max_roles = ${cap};
END`);
}

/** The broker's login: no attributes, a member of nothing. What it may do, its functions do for it. */
function login(config: PostgresTarget, verifier: string | undefined): string {
  const user = identifier(config.user);
  return [
    block(`DECLARE
  r record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(config.user)}) THEN
    CREATE ROLE ${user} LOGIN;
  END IF;
  IF EXISTS (SELECT FROM pg_roles b WHERE b.rolname = ${literal(config.user)} AND (b.rolsuper OR b.rolcreatedb
             OR b.rolcreaterole OR b.rolreplication OR b.rolbypassrls
             OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = b.oid))) THEN
    RAISE EXCEPTION 'the login % of the broker must have no attributes and be a member of nothing', ${literal(config.user)};
  END IF;
  ${forgetLogins}
  BEGIN
    -- Parameters of its calls (verifiers) stay out of the log, also under log_statement = all.
    ALTER ROLE ${user} SET log_parameter_max_length = 0;
    ALTER ROLE ${user} SET log_parameter_max_length_on_error = 0;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'only a superuser may keep parameters out of the log: with log_statement = all it shows SCRAM verifiers';
  END;
END`),
    ...(verifier === undefined ? [] : [`ALTER ROLE ${user} PASSWORD ${literal(verifier)};`]),
    `GRANT CONNECT ON DATABASE ${identifier(config.database)} TO ${user};`,
  ].join('\n');
}

/** The owner may give the template to others, and does not use it. Before 16, CREATEROLE alone is enough. */
function lend(template: string, owner: string): string {
  return block(`BEGIN
  IF current_setting('server_version_num')::integer >= 160000 THEN
    EXECUTE 'GRANT ${identifier(template)} TO ${owner.replaceAll("'", "''")} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE';
  END IF;
END`);
}

function poolSizes(entitlements: readonly { readonly config: PostgresEntitlement }[]): ReadonlyMap<string, number> {
  const sizes = new Map<string, number>();
  for (const { config } of entitlements) {
    sizes.set(config.template, Math.max(config.pool_size ?? defaultPoolSize, sizes.get(config.template) ?? 0));
  }
  return sizes;
}

/** The roles of one template's pool. One that is there already and not known was made by somebody else. */
function pool(template: string, size: number): string {
  const prefix = `${template.replace(/^mayfly_t_/, 'mayfly_p_')}_`;
  return block(`DECLARE
  v_name text;
  v_oid oid;
BEGIN
  DELETE FROM mayfly.pooled p WHERE p.handle IS NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = p.role_oid);
  FOR v_number IN 1..${size} LOOP
    v_name := ${literal(prefix)} || v_number;
    v_oid := (SELECT oid FROM pg_roles WHERE rolname = v_name);
    IF NOT EXISTS (SELECT FROM mayfly.pooled p WHERE p.role_oid = v_oid) THEN
      IF v_oid IS NOT NULL THEN
        RAISE EXCEPTION 'the role % exists and is not of this pool: another database of this server may have it', v_name;
      END IF;
      EXECUTE format('CREATE ROLE %I NOLOGIN INHERIT CONNECTION LIMIT 0', v_name);
      PERFORM mayfly.lend_template(${literal(template)}, v_name);
      INSERT INTO mayfly.pooled (role_oid, template) SELECT oid, ${literal(template)} FROM pg_roles WHERE rolname = v_name;
    END IF;
    -- By this it is known in the other databases.
    EXECUTE format('COMMENT ON ROLE %I IS %L', v_name, 'mayfly:1:' || (SELECT i.id FROM mayfly.installation i) || ':pool');
  END LOOP;
END`);
}
