import { ProviderError } from '../../src/provider.ts';
import { block, identifier, literal } from './quote.ts';
import type { PostgresEntitlement, PostgresTarget } from './schema.ts';

/** What `prepare` writes for params, the record of statements and the dead-man's switch. */

export interface DeclaredParam {
  readonly type: 'string' | 'integer' | 'boolean';
}

interface Bound {
  readonly name: string;
  readonly config: PostgresEntitlement;
  readonly params?: Readonly<Record<string, DeclaredParam>>;
}

export const boundParts: readonly string[] = ['definer-params.sql', 'definer-rows.sql', 'definer-expire.sql'];
/** Of them, what the broker's login may execute. */
export const boundFunctions: readonly string[] = ['rows_survey(text)', 'expire_age()'];

/** The params that a role of this entitlement carries: a mint must bring exactly these. */
export function boundParams(config: PostgresEntitlement): readonly string[] {
  return [...new Set([...config.row_security.map(({ param }) => param), ...config.params])].sort();
}

/** What entitlements that share a template must say alike. */
export function meaning({ privileges, row_security: rows, params, record }: PostgresEntitlement): unknown {
  return { privileges, rows, params, record };
}

/** @throws ProviderError `misconfigured` when what is declared and what is bound are not the same params. */
export function bindings(entitlements: readonly Bound[]): string {
  const templates = new Map<
    string,
    { readonly types: Readonly<Record<string, string>>; readonly config: PostgresEntitlement }
  >();
  for (const { name, config, params } of entitlements) {
    const types = typesOf(name, config, params);
    const before = templates.get(config.template);
    if (before !== undefined && JSON.stringify(before.types) !== JSON.stringify(types)) {
      throw new ProviderError(
        'misconfigured',
        `${name}: another entitlement of ${config.template} declares its params as other types`,
      );
    }
    templates.set(config.template, { types, config });
  }
  const lines = [...templates].flatMap(([template, { types, config }]) => [
    `UPDATE mayfly.template SET params = ${literal(JSON.stringify(types))}, record_statements = ${String(config.record === 'statements')} WHERE name = ${literal(template)};`,
    ...(Object.keys(types).length === 0
      ? []
      : [
          `GRANT USAGE ON SCHEMA mayfly TO ${identifier(template)};`,
          `GRANT EXECUTE ON FUNCTION mayfly.param(text) TO ${identifier(template)};`,
        ]),
    ...(config.record === 'statements'
      ? [
          block(
            `BEGIN\n  RAISE WARNING 'the server will log every statement of the roles of ${template}, with the literals in it';\nEND`,
          ),
        ]
      : []),
  ]);
  const rows = [...templates].flatMap(([template, { config }]) =>
    config.row_security.map((row) => ({ template, ...row })),
  );
  return [...lines, block(`BEGIN\n  PERFORM mayfly.secure_rows(${literal(JSON.stringify(rows))});\nEND`)].join('\n');
}

function typesOf(
  name: string,
  config: PostgresEntitlement,
  declared: Bound['params'],
): Readonly<Record<string, string>> {
  const bound = boundParams(config);
  const unbound = Object.keys(declared ?? {}).filter((param) => !bound.includes(param));
  const unknown = declared === undefined ? [] : bound.filter((param) => !Object.hasOwn(declared, param));
  if (unbound.length > 0 || unknown.length > 0) {
    const says = [
      ...(unbound.length > 0 ? [`nothing binds ${unbound.join(', ')} (row_security or params)`] : []),
      ...(unknown.length > 0 ? [`it does not declare ${unknown.join(', ')}`] : []),
    ];
    throw new ProviderError('misconfigured', `${name}: ${says.join('; ')}`);
  }
  return Object.fromEntries(bound.map((param) => [param, declared?.[param]?.type ?? 'any']));
}

/** The login that may call `mayfly.expire()` and nothing else, or null when its name would be too long. */
export function expireLogin(config: PostgresTarget): string | null {
  const login = `${config.user}_expire`;
  return Buffer.byteLength(login) > 63 ? null : login;
}

/** The login for the dead-man's switch, and its schedule where pg_cron is in this database. */
export function expiry(config: PostgresTarget): string {
  const login = expireLogin(config);
  const role = login === null ? '' : identifier(login);
  const lines =
    login === null
      ? []
      : [
          block(`BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = ${literal(login)}) THEN
    CREATE ROLE ${role} LOGIN;
  END IF;
  IF EXISTS (SELECT FROM pg_auth_members WHERE member = ${literal(role)}::regrole) THEN
    RAISE EXCEPTION 'the login % of the dead-man''s switch must be a member of nothing', ${literal(login)};
  END IF;
END`),
          '-- It has no password until an administrator gives it one: \\password, then mayfly target prepare --expire-cronjob.',
          `ALTER ROLE ${role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 2;`,
          `GRANT CONNECT ON DATABASE ${identifier(config.database)} TO ${role};`,
          `GRANT USAGE ON SCHEMA mayfly TO ${role};`,
          `GRANT EXECUTE ON FUNCTION mayfly.expire() TO ${role};`,
        ];
  const job = `mayfly-expire-${config.database}`;
  return [
    ...lines,
    block(`DECLARE
  v_cron name := current_setting('cron.database_name', true);
BEGIN
  IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
    EXECUTE format('SELECT cron.schedule(%L, %L, %L)', ${literal(job)}, '* * * * *', 'SELECT mayfly.expire()');
  ELSIF v_cron IS NOT NULL THEN
    RAISE WARNING 'pg_cron is in the database %: there, as a superuser: %', v_cron,
      format('SELECT cron.schedule_in_database(%L, %L, %L, %L)', ${literal(job)}, '* * * * *', 'SELECT mayfly.expire()', current_database());
  END IF;
END`),
  ].join('\n');
}

/** What needs a superuser to be bound. @throws ProviderError `misconfigured` */
export function assertNothingBound(
  mode: string,
  entitlements: readonly { readonly name: string; readonly config: PostgresEntitlement }[],
): void {
  for (const { name, config } of entitlements) {
    if (boundParams(config).length > 0 || config.record !== 'nothing') {
      throw new ProviderError(
        'misconfigured',
        `${name}: params, row_security and record need the mode definer; this target has the mode ${mode}`,
      );
    }
  }
}
