import pg from 'pg';
import { type PreparedBy, ProviderError, type Secret } from '../../src/provider.ts';
import { assertNothingBound, bindings, boundFunctions, boundParts, expiry, meaning } from './prepare-bound.ts';
import { forgetLogins, prepareManagedSql } from './prepare-managed.ts';
import { assertNothingKept, elsewhereSql, keeping, ownedFunctions, ownedParts } from './prepare-owned.ts';
import { owner } from './prepare-owner.ts';
import { part, type PrepareEntitlement, rightDatabase } from './prepare-sql.ts';
import { block, identifier, literal } from './quote.ts';
import type { PostgresTarget, Privilege } from './schema.ts';
import { scramVerifier } from './scram.ts';
import { tlsOptions } from './tls.ts';

export type { PrepareEntitlement } from './prepare-sql.ts';

export interface PrepareOptions {
  /** SCRAM verifier for the broker's login. Without it the password is left as it is (none, for a new login). */
  readonly brokerVerifier?: string;
  /** Take the target over from another installation, or from another store of the same. */
  readonly adopt?: boolean;
  /** Who prepares it. */
  readonly by?: PreparedBy;
}

/** All renewals of one role together; DESIGN §4 allows no grant beyond a day. */
const maxTotalSeconds = 86_400;
/** What looks at roles and rights and changes nothing. */
const lookParts = [
  'definer-observe.sql',
  'definer-inspect.sql',
  'definer-width.sql',
  'definer-standby.sql',
  'definer-hold.sql',
];
const parts = [
  ...['definer.sql', 'definer-mint.sql', 'definer-end.sql', 'definer-look.sql'],
  ...[...lookParts, ...boundParts, ...ownedParts],
];
/** What the broker's login may execute, and nothing else. */
const brokerFunctions = [
  ...['version()', 'status()', 'allowance(text)', 'asleep_now()', 'survey()', 'look(text[], oid[])'],
  ...['list(uuid, text, integer)', 'hold(uuid, text, uuid, bigint)'],
  'mint(uuid, text, uuid, text, text, timestamptz, timestamptz, timestamptz, integer, jsonb)',
  'renew(uuid, text, timestamptz)',
  'fence(uuid, text[], oid[], timestamptz[], integer, boolean)',
  ...['seen(uuid, oid[], integer)', 'observe(uuid, text[], oid[], integer)', 'width(uuid, text)'],
  ...['inspect(uuid, text[], oid[])', 'functions_named(uuid, text[])'],
  ...['unlink(uuid, oid[], integer)', 'kill(uuid, oid[], integer[])', 'drop(uuid, text[], oid[], integer, boolean)'],
  ...['wal()', 'replicas()', 'standby(pg_lsn)', 'unblock(uuid)'],
  ...[...boundFunctions, ...ownedFunctions],
];

/**
 * The complete SQL that makes a target ready, for a superuser connected to the target's database; one transaction,
 * to be run again after every change. Rights that are no longer declared are taken from the templates. Holds no
 * password in clear, only the verifier that was given.
 * @throws ProviderError `misconfigured` when two entitlements say different things of one template.
 */
export function prepareSql(
  config: PostgresTarget,
  entitlements: readonly PrepareEntitlement[],
  installation: string,
  options: PrepareOptions = {},
): string {
  const templates = byTemplate(entitlements);
  if (config.mode !== 'definer') {
    assertNothingBound(config.mode, entitlements);
    assertNothingKept(config.mode, entitlements);
    const shared = {
      ...{ functions: parts.map(part), brokerFunctions, rightDatabase: rightDatabase(config.database, config.user) },
      ...{ installation: owner(installation, options), allowList: allowList(templates, false) },
      rights: [...templates].map(([name, { privileges }]) => rights(config.database, name, privileges)),
    };
    return prepareManagedSql(config, entitlements, shared, options.brokerVerifier);
  }
  const sections = [
    `-- Mayfly: prepares the database ${config.database} as a target. Run as a superuser, connected to it.`,
    "BEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\nSET LOCAL lock_timeout = '10s';",
    rightDatabase(config.database, config.user),
    ...parts.map(part),
    owner(installation, options),
    broker(config, options.brokerVerifier),
    allowList(templates, true),
    ...[...templates].map(([name, { privileges }]) => rights(config.database, name, privileges)),
    bindings(entitlements),
    expiry(config),
    keeping(installation, entitlements),
    [
      '-- Worth doing besides, where nothing else needs them (mayfly target check says whether they matter):',
      '--   REVOKE CREATE ON SCHEMA public FROM PUBLIC;',
      `--   REVOKE TEMPORARY ON DATABASE ${identifier(config.database).replaceAll('\n', ' ')} FROM PUBLIC;`,
    ].join('\n'),
    'COMMIT;\n',
  ];
  return sections.join('\n\n');
}

/**
 * Applies that SQL with an admin's URL (a superuser; its database is ignored, the target's is used).
 * @throws ProviderError With what the server said: it is read by the person who runs this.
 */
export async function prepare(
  adminUrl: string,
  config: PostgresTarget,
  entitlements: readonly PrepareEntitlement[],
  installation: string,
  options: { readonly password: Secret<string> } & Pick<PrepareOptions, 'adopt' | 'by'>,
): Promise<void> {
  const brokerVerifier = await scramVerifier(options.password.reveal(), Math.max(config.scram_iterations, 4096));
  const sql = prepareSql(config, entitlements, installation, { ...options, brokerVerifier });
  let url: URL;
  try {
    url = new URL(adminUrl);
  } catch {
    throw new ProviderError('misconfigured', 'the admin URL is not a URL');
  }
  await apply(url, config, config.database, sql);
  for (const database of config.databases) {
    await apply(url, config, database, elsewhereSql(config, database, installation, options.adopt === true));
  }
}

async function apply(url: URL, config: PostgresTarget, database: string, sql: string): Promise<void> {
  const client = new pg.Client({
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? 5432 : Number(url.port),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database,
    ssl: tlsOptions(config, url.hostname),
    options: '',
    application_name: 'mayfly target prepare',
  });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query(sql);
  } catch (error) {
    const says = error instanceof pg.DatabaseError ? error.message : 'the admin could not connect';
    throw new ProviderError('misconfigured', `preparing ${database}: ${says}`);
  } finally {
    await client.end().catch(() => {});
  }
}

interface Template {
  readonly privileges: readonly Privilege[];
  readonly meaning: unknown;
  readonly maxSeconds: number;
  readonly maxLive: number;
}

/** Entitlements may share a template, if they mean the same rights by it. */
function byTemplate(entitlements: readonly PrepareEntitlement[]): ReadonlyMap<string, Template> {
  const templates = new Map<string, Template>();
  for (const { name, maxTtlSeconds, config } of entitlements) {
    const before = templates.get(config.template);
    if (before !== undefined && JSON.stringify(before.meaning) !== JSON.stringify(meaning(config))) {
      throw new ProviderError(
        'misconfigured',
        `${name}: the template ${config.template} stands for other privileges, params or records in another entitlement`,
      );
    }
    templates.set(config.template, {
      privileges: config.privileges,
      meaning: meaning(config),
      maxSeconds: Math.max(maxTtlSeconds, before?.maxSeconds ?? 0),
      maxLive: Math.max(config.max_live, before?.maxLive ?? 0),
    });
  }
  return templates;
}

function broker(config: PostgresTarget, verifier: string | undefined): string {
  const login = identifier(config.user);
  const noAttributes = 'LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS';
  return [
    block(`DECLARE
  r record;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(config.user)}) THEN
    CREATE ROLE ${login} LOGIN;
  END IF;
  IF EXISTS (SELECT FROM pg_auth_members WHERE member = ${literal(identifier(config.user))}::regrole) THEN
    RAISE EXCEPTION 'the login % of the broker must be a member of nothing', ${literal(config.user)};
  END IF;
  ${forgetLogins}
END`),
    `ALTER ROLE ${login} ${noAttributes}${verifier === undefined ? '' : ` PASSWORD ${literal(verifier)}`};`,
    '-- Parameters of its calls (verifiers) stay out of the log, also under log_statement = all.',
    `ALTER ROLE ${login} SET log_parameter_max_length = 0;`,
    `ALTER ROLE ${login} SET log_parameter_max_length_on_error = 0;`,
    `GRANT CONNECT ON DATABASE ${identifier(config.database)} TO ${login};`,
    `GRANT USAGE ON SCHEMA mayfly TO ${login};`,
    `GRANT EXECUTE ON FUNCTION ${brokerFunctions.map((each) => `mayfly.${each}`).join(', ')} TO ${login};`,
  ].join('\n');
}

/**
 * The allow-list becomes what is declared; every template, also one no longer declared, loses its rights here first.
 * @param superuser Only a superuser may take attributes away; `check` says which a template has.
 */
function allowList(templates: ReadonlyMap<string, Template>, superuser: boolean): string {
  const names = `ARRAY[${[...templates.keys()].map((name) => literal(name)).join(', ')}]::text[]`;
  const create = [...templates.keys()].map(
    (name) => `  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(name)}) THEN
    CREATE ROLE ${identifier(name)} NOLOGIN;
  END IF;
  ALTER ROLE ${identifier(name)} NOLOGIN${superuser ? ' NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS' : ''};`,
  );
  const rows = [...templates].map(
    ([name, { maxSeconds, maxLive }]) =>
      `INSERT INTO mayfly.template (name, max_seconds, max_total_seconds, max_live)
VALUES (${literal(name)}, ${maxSeconds}, ${Math.max(maxTotalSeconds, maxSeconds)}, ${maxLive})
ON CONFLICT (name) DO UPDATE SET max_seconds = excluded.max_seconds,
  max_total_seconds = excluded.max_total_seconds, max_live = excluded.max_live;`,
  );
  return [
    block(`DECLARE
  r record;
BEGIN
${create.join('\n')}
  FOR r IN SELECT DISTINCT s.classid, s.objid, a.rolname
           FROM pg_shdepend s JOIN pg_roles a ON a.oid = s.refobjid JOIN pg_database d ON d.oid = s.dbid
           WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'a' AND d.datname = current_database()
             AND (a.rolname = ANY (${names}) OR a.rolname IN (SELECT t.name FROM mayfly.template t)) LOOP
    IF r.classid = 'pg_class'::regclass THEN
      EXECUTE format('REVOKE ALL ON %s %s FROM %I',
        (SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END FROM pg_class c WHERE c.oid = r.objid),
        r.objid::regclass, r.rolname);
    ELSIF r.classid = 'pg_namespace'::regclass THEN
      EXECUTE format('REVOKE ALL ON SCHEMA %s FROM %I', r.objid::regnamespace, r.rolname);
    ELSIF r.classid = 'pg_proc'::regclass THEN
      EXECUTE format('REVOKE ALL ON ROUTINE %s FROM %I', r.objid::regprocedure, r.rolname);
    ELSE
      RAISE WARNING 'a right of % on % % is not declared and left as it is', r.rolname, r.classid::regclass, r.objid;
    END IF;
  END LOOP;
END`),
    `DELETE FROM mayfly.template WHERE name <> ALL (${names});`,
    ...rows,
  ].join('\n');
}

function rights(database: string, template: string, privileges: readonly Privilege[]): string {
  const role = identifier(template);
  const lines = [`GRANT CONNECT ON DATABASE ${identifier(database)} TO ${role};`];
  for (const item of privileges) {
    const schema = identifier(item.schema);
    const grant = item.grant.join(', ');
    lines.push(`GRANT USAGE ON SCHEMA ${schema} TO ${role};`);
    for (const table of item.tables ?? []) {
      lines.push(`GRANT ${grant} ON TABLE ${schema}.${identifier(table)} TO ${role};`);
    }
    for (const [table, columns] of Object.entries(item.columns ?? {})) {
      const list = columns.map((column) => identifier(column)).join(', ');
      const each = item.grant.map((right) => `${right} (${list})`).join(', ');
      lines.push(`GRANT ${each} ON TABLE ${schema}.${identifier(table)} TO ${role};`);
    }
    for (const sequence of item.sequences ?? []) {
      lines.push(`GRANT ${grant} ON SEQUENCE ${schema}.${identifier(sequence)} TO ${role};`);
    }
    for (const signature of item.functions ?? []) {
      const [, name = '', args = ''] = /^([^(]+)\((.*)\)$/.exec(signature) ?? [];
      lines.push(`GRANT EXECUTE ON FUNCTION ${schema}.${identifier(name)}(${args}) TO ${role};`);
    }
  }
  return lines.join('\n');
}
