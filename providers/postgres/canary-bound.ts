import { randomUUID } from 'node:crypto';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import type { Connection } from './connection.ts';
import { boundParams } from './prepare-bound.ts';
import { says } from './probe.ts';
import { identifier } from './quote.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';

type Params = Readonly<Record<string, string | number | boolean>>;

/** Values that no tenant has, each of the type that the template takes and that its columns can be compared with. */
export async function canaryParams(target: Target, config: PostgresEntitlement, signal: AbortSignal): Promise<Params> {
  const bound = boundParams(config);
  if (bound.length === 0) return {};
  const { types, columns } = await target.issuing.useTwice(signal, async ({ connection }) => {
    const [row] = await connection.query<{ types: Record<string, string> | null }>(
      'reading the params',
      `SELECT mayfly.rows_survey($1) -> 'params' AS types`,
      [config.template],
      signal,
    );
    const found = await connection.query<{ param: string; type: string }>(
      'reading the columns',
      `SELECT d.param, format_type(a.atttypid, NULL) AS type
       FROM jsonb_to_recordset($1) AS d (schema text, "table" text, "column" text, param text)
       JOIN pg_namespace n ON n.nspname = d.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = d."table"
       JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = d."column"`,
      [JSON.stringify(config.row_security)],
      signal,
    );
    return { types: row?.types ?? {}, columns: new Map(found.map(({ param, type }) => [param, type])) };
  });
  return Object.fromEntries(
    bound.map((param) => [param, nobodys(types[param] ?? 'any', columns.get(param) ?? 'text')]),
  );
}

function nobodys(type: string, column: string): string | number | boolean {
  if (type === 'boolean') return false;
  if (type === 'integer') return -1;
  if (column === 'uuid') return randomUUID();
  if (column === 'boolean') return 'false';
  return /int/.test(column) ? '-1' : `mayfly-canary-${randomUUID()}`;
}

/** As the minted role: row security is active for it, and it sees no row but those of its params. */
export async function boundRows(
  steps: CheckStep[],
  session: Connection,
  config: PostgresEntitlement,
  params: Params,
  signal: AbortSignal,
): Promise<void> {
  for (const { schema, table, column, param } of config.row_security) {
    const name = `${identifier(schema)}.${identifier(table)}`;
    const at = identifier(column);
    try {
      const [row] = await session.query<{ active: boolean; readable: boolean }>(
        'looking at the rows',
        `SELECT row_security_active($1::regclass) AS active, has_column_privilege($1, $2, 'SELECT') AS readable`,
        [name, column],
        signal,
      );
      const others =
        row?.readable === true
          ? await session.query(
              'looking for rows',
              `SELECT FROM ${name} WHERE ${at}::text IS DISTINCT FROM $1 LIMIT 1`,
              [String(params[param])],
              signal,
            )
          : [];
      const ok = row?.active === true && others.length === 0;
      steps.push({
        step: 'rows',
        ok,
        says: ok ? `${name}: no row but those of ${param}` : `${name}: rows of others are seen`,
      });
    } catch (error) {
      steps.push({ step: 'rows', ok: false, says: `${name}: ${says(error)}` });
    }
  }
}

/** As the minted role: its statements are logged, and it cannot undo that. */
export async function recorded(
  steps: CheckStep[],
  session: Connection,
  config: PostgresEntitlement,
  signal: AbortSignal,
): Promise<void> {
  if (config.record !== 'statements') return;
  const [row] = await session.query<{ set: string }>(
    'looking',
    `SELECT current_setting('log_statement') AS set`,
    [],
    signal,
  );
  const undone = await session.query('trying', 'SET log_statement = none', [], signal).then(
    () => true,
    (error: unknown) => !(error instanceof ProviderError && error.errorClass === 'denied'),
  );
  const ok = row?.set === 'all' && !undone;
  steps.push({
    step: 'recorded',
    ok,
    says: ok
      ? 'its statements are logged, and it cannot stop that'
      : 'its statements are not logged, or it can stop that',
  });
}
