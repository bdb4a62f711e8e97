import { type CheckStep, ProviderError } from '../../src/provider.ts';
import type { Target } from './target.ts';

interface Database {
  readonly name: string;
  readonly enters: boolean;
  readonly creates: boolean;
}

/**
 * The other databases of the cluster: each that is listed must be prepared; one that is not listed and that everybody
 * may enter is a place where a role can own things that nobody cleans up (a large object needs no right but CONNECT).
 */
export async function databases(
  target: Target,
  template: string | undefined,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const listed = target.config.databases;
  const found = await target.issuing.useTwice(signal, ({ connection }) =>
    connection.query<Database & Record<string, unknown>>(
      'looking at the databases',
      `SELECT d.datname AS name, coalesce(bool_or(x.privilege_type = 'CONNECT'), false) AS enters,
              coalesce(bool_or(x.privilege_type = 'CREATE'), false) AS creates
       FROM pg_catalog.pg_database d
       LEFT JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) x ON x.grantee = 0
       WHERE d.datallowconn AND d.datname <> pg_catalog.current_database() GROUP BY d.datname ORDER BY d.datname`,
      [],
      signal,
    ),
  );
  const open = found.filter(({ name, enters }) => enters && !listed.includes(name));
  const creating = open.filter(({ creates }) => creates).map(({ name }) => name);
  const names = (list: readonly { readonly name: string }[]): string => list.map(({ name }) => name).join(', ');
  const steps: CheckStep[] = [
    {
      step: 'databases',
      ok: creating.length === 0,
      ...(creating.length === 0 && open.length > 0 ? { warns: true } : {}),
      says:
        creating.length > 0
          ? `PUBLIC may create schemas in databases that the target does not list: ${creating.join(', ')}`
          : open.length === 0
            ? 'every database that PUBLIC may enter is listed'
            : `PUBLIC may enter databases that the target does not list, and own large objects there: ${names(open)} (list them, or REVOKE CONNECT ON DATABASE … FROM PUBLIC)`,
    },
  ];
  for (const name of listed) {
    steps.push(await prepared(target, name, signal));
  }
  return [...steps, ...(await cron(target, template, signal))];
}

/** A job of pg_cron is no object of its role: nothing in the catalogs says whose it is. Only in this database. */
async function cron(target: Target, template: string | undefined, signal: AbortSignal): Promise<readonly CheckStep[]> {
  if (template === undefined) {
    return [];
  }
  const [row] = await target.issuing.useTwice(signal, ({ connection }) =>
    connection.query<{ uses: boolean }>(
      'looking at pg_cron',
      `SELECT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE') AS uses
       FROM pg_catalog.pg_extension e, pg_catalog.pg_namespace n, pg_catalog.pg_roles r
       WHERE e.extname = 'pg_cron' AND n.nspname = 'cron' AND r.rolname = $1`,
      [template],
      signal,
    ),
  );
  if (row === undefined) {
    return [];
  }
  const says = row.uses
    ? `${template} may use the schema cron: its jobs would stay (REVOKE USAGE ON SCHEMA cron FROM PUBLIC)`
    : `${template} may not use the schema cron`;
  return [{ step: 'pg_cron', ok: !row.uses, says }];
}

/** Asks about a role that cannot be: who may ask that, and is not a stranger there, may clean up there. */
async function prepared(target: Target, name: string, signal: AbortSignal): Promise<CheckStep> {
  try {
    await target.issuing.useTwice(signal, ({ status }) =>
      target.elsewhere(name, signal, (connection) =>
        connection.query(
          'asking',
          "SELECT mayfly.disown($1, $2, 'mfy_', 0, 'rest', false, 0, 1, 1)",
          [target.context.installation, status.system_identifier],
          signal,
        ),
      ),
    );
    return { step: 'database', ok: true, says: `${name} is prepared` };
  } catch (error) {
    return {
      step: 'database',
      ok: false,
      says: `${name}: ${error instanceof ProviderError ? error.message : 'failed'}`,
    };
  }
}
