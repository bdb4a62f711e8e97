import { type CheckStep, ProviderError } from '../../src/provider.ts';
import type { Connection } from './connection.ts';
import { identifier } from './quote.ts';
import type { PostgresEntitlement } from './schema.ts';

/** What went wrong, for a step. */
export function says(error: unknown): string {
  return error instanceof ProviderError ? error.message : 'failed unexpectedly';
}

/** Each declared right is used where that changes nothing, else asked for. */
export async function allowed(
  steps: CheckStep[],
  session: Connection,
  config: PostgresEntitlement,
  signal: AbortSignal,
): Promise<void> {
  const may = async (what: string, text: string, values: readonly unknown[] = []): Promise<void> => {
    try {
      const [row] = await session.query('using the right', text, values, signal);
      const ok = row?.['may'] !== false;
      steps.push({ step: 'allowed', ok, says: `${what}: ${ok ? 'works' : 'is refused'}` });
    } catch (error) {
      steps.push({ step: 'allowed', ok: false, says: `${what}: ${says(error)}` });
    }
  };
  for (const item of config.privileges) {
    const schema = identifier(item.schema);
    for (const right of item.grant) {
      for (const table of item.tables ?? []) {
        const name = `${schema}.${identifier(table)}`;
        await (right === 'SELECT'
          ? may(`SELECT on ${name}`, `SELECT true AS may FROM ${name} LIMIT 1`)
          : may(`${right} on ${name}`, 'SELECT has_table_privilege($1, $2) AS may', [name, right]));
      }
      for (const [table, columns] of Object.entries(item.columns ?? {})) {
        const name = `${schema}.${identifier(table)}`;
        const list = columns.map((column) => identifier(column)).join(', ');
        await (right === 'SELECT'
          ? may(`SELECT (${list}) on ${name}`, `SELECT ${list} FROM ${name} LIMIT 0`)
          : may(
              `${right} (${list}) on ${name}`,
              'SELECT bool_and(has_column_privilege($1, c, $2)) AS may FROM unnest($3::text[]) c',
              [name, right, columns],
            ));
      }
      for (const sequence of item.sequences ?? []) {
        const name = `${schema}.${identifier(sequence)}`;
        await may(`${right} on ${name}`, 'SELECT has_sequence_privilege($1, $2) AS may', [name, right]);
      }
      for (const signature of item.functions ?? []) {
        const name = `${schema}.${signature}`;
        await may(`${right} on ${name}`, 'SELECT has_function_privilege($1, $2) AS may', [name, right]);
      }
    }
  }
}

/** What no minted role may do. */
export async function refused(
  steps: CheckStep[],
  session: Connection,
  config: PostgresEntitlement,
  serverVersion: number,
  signal: AbortSignal,
): Promise<void> {
  const attempts: readonly (readonly [string, string, boolean])[] = [
    ['CREATE TABLE in public', 'CREATE TABLE public.mayfly_canary (a int)', true],
    ['CREATE ROLE', 'CREATE ROLE mfy_canary', true],
    ['SET ROLE to the template', `SET ROLE ${identifier(config.template)}`, serverVersion >= 160_000],
    ['reading mayfly.handle', 'SELECT 1 FROM mayfly.handle LIMIT 1', true],
    ['reading pg_authid', 'SELECT 1 FROM pg_authid LIMIT 1', true],
    ['a mint of its own', "SELECT mayfly.mint(NULL, '', NULL, '', '', now(), now(), now(), 1)", true],
    ['running a program', "COPY (SELECT 1) TO PROGRAM 'true'", true],
  ];
  for (const [what, text, must] of attempts) {
    let outcome: string;
    await session.query('trying', 'BEGIN', [], signal);
    try {
      await session.query('trying', text, [], signal);
      outcome = 'allowed';
    } catch (error) {
      outcome = error instanceof ProviderError && error.errorClass === 'denied' ? 'refused' : says(error);
    }
    await session.query('trying', 'ROLLBACK', [], signal);
    const why = must || outcome === 'refused' ? '' : ', as always before PostgreSQL 16';
    steps.push({ step: 'refused', ok: outcome === 'refused' || !must, says: `${what}: ${outcome}${why}` });
  }
}

/** Every relation outside the system's own that the role can reach at all, also through PUBLIC, must be declared. */
export async function nothingMore(
  steps: CheckStep[],
  session: Connection,
  config: PostgresEntitlement,
  signal: AbortSignal,
): Promise<void> {
  const declared = config.privileges.flatMap(({ schema, tables = [], columns = {}, sequences = [] }) =>
    [...tables, ...Object.keys(columns), ...sequences].map((name) => `${schema}\0${name}`),
  );
  const rows = await session.query<{ schema: string; name: string }>(
    'looking for more',
    `SELECT n.nspname AS schema, c.relname AS name
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND has_schema_privilege(n.oid, 'USAGE')
       AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'USAGE, SELECT, UPDATE')
                WHEN c.relkind IN ('r', 'p', 'v', 'm', 'f') THEN has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                  OR has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                ELSE false END`,
    [],
    signal,
  );
  const more = rows.filter(({ schema, name }) => !declared.includes(`${schema}\0${name}`));
  const named = more.slice(0, 5).map(({ schema, name }) => `${schema}.${name}`);
  steps.push({
    step: 'nothing_more',
    ok: more.length === 0,
    says:
      more.length === 0
        ? 'the role reaches no table, view or sequence that is not declared'
        : `the role also reaches ${more.length} that are not declared: ${named.join(', ')}`,
  });
}
