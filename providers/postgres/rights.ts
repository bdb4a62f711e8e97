import { z } from 'zod';
import type { Connection } from './connection.ts';
import { identifier } from './quote.ts';
import type { PostgresEntitlement } from './schema.ts';

/** One right as an ACL of the target has it. */
export const rightSchema = z.object({
  kind: z.enum(['relation', 'column', 'schema', 'function', 'database', 'other']),
  schema: z.string().nullable(),
  name: z.string().nullable(),
  column: z.string().nullable(),
  oid: z.int(),
  right: z.string(),
  grantable: z.boolean(),
});
export type Right = z.infer<typeof rightSchema>;

/** The rights that an entitlement declares, by a key that is the same for a right of an ACL. */
export class Declared {
  /** Key → how a person would say it. */
  readonly #rights = new Map<string, string>();

  /** @param functions The OIDs of `signatures(config)`, in order; null for one that does not exist. */
  constructor(config: PostgresEntitlement, database: string, functions: readonly (number | null)[]) {
    const add = (says: string, ...parts: readonly (string | number)[]): void => {
      this.#rights.set(JSON.stringify(parts), says);
    };
    add(`CONNECT on the database ${database}`, 'database', database, 'CONNECT');
    const oids = [...functions];
    for (const item of config.privileges) {
      const { schema } = item;
      add(`USAGE on the schema ${schema}`, 'schema', schema, 'USAGE');
      const names = item.functions?.map((signature) => ({ signature, oid: oids.shift() ?? null })) ?? [];
      for (const right of item.grant) {
        for (const name of [...(item.tables ?? []), ...(item.sequences ?? [])]) {
          add(`${right} on ${schema}.${name}`, 'relation', schema, name, right);
        }
        for (const [table, columns] of Object.entries(item.columns ?? {})) {
          for (const column of columns) {
            add(`${right} (${column}) on ${schema}.${table}`, 'column', schema, table, column, right);
          }
        }
        for (const { signature, oid } of names) {
          add(`${right} on ${schema}.${signature}`, 'function', oid ?? signature, right);
        }
      }
    }
  }

  has(right: Right): boolean {
    return (
      this.#rights.has(key(right)) ||
      isOurs(right) ||
      // Who has a right on the whole table has it on each column.
      (right.kind === 'column' && this.#rights.has(key({ ...right, kind: 'relation' })))
    );
  }

  /** What is declared and not among these. */
  missing(rights: readonly Right[]): readonly string[] {
    const there = new Set(rights.map(key));
    for (const right of rights.filter(({ kind }) => kind === 'relation')) {
      this.#columnsOf(right).forEach((each) => there.add(each));
    }
    return [...this.#rights].filter(([each]) => !there.has(each)).map(([, says]) => says);
  }

  /** Who has a right on the whole table has it on each column. */
  #columnsOf({ schema, name, right }: Right): readonly string[] {
    return [...this.#rights.keys()].filter((each) => {
      const [kind, ofSchema, table, , granted] = z.array(z.unknown()).parse(JSON.parse(each));
      return kind === 'column' && ofSchema === schema && table === name && granted === right;
    });
  }
}

function key({ kind, schema, name, column, oid, right }: Right): string {
  const parts: Readonly<Record<Right['kind'], readonly unknown[]>> = {
    relation: [schema, name, right],
    column: [schema, name, column, right],
    schema: [schema, right],
    function: [oid, right],
    database: [name, right],
    other: [oid],
  };
  return JSON.stringify([kind, ...parts[kind]]);
}

/** What the template of an entitlement with params needs of our own schema: it opens no other function there. */
function isOurs({ kind, schema, name, right }: Right): boolean {
  return (
    schema === 'mayfly' &&
    ((kind === 'schema' && right === 'USAGE') || (kind === 'function' && name === 'mayfly.param(text)'))
  );
}

/** `SELECT on billing.invoices`. */
export function sayRight({ kind, schema, name, column, right, grantable }: Right): string {
  const what =
    kind === 'other' || kind === 'function' ? name : kind === 'database' ? `the database ${name}` : `${schema}.${name}`;
  const on = kind === 'schema' ? `the schema ${schema}` : what;
  return `${right}${column === null ? '' : ` (${column})`} on ${on}${grantable ? ', to be granted on' : ''}`;
}

/** The first few of a list, and how many there are. */
export function some(all: readonly string[], most = 5): string {
  return all.length <= most ? all.join(', ') : `${all.slice(0, most).join(', ')} and ${all.length - most} more`;
}

function signatures(config: PostgresEntitlement): readonly string[] {
  return config.privileges.flatMap(({ schema, functions = [] }) =>
    functions.map((signature) => `${identifier(schema)}.${signature}`),
  );
}

/** What each entitlement declares, in the words of the target. @throws ProviderError */
export async function readDeclared(
  configs: readonly PostgresEntitlement[],
  installation: string,
  database: string,
  connection: Connection,
  signal: AbortSignal,
): Promise<readonly Declared[]> {
  const named = configs.map(signatures);
  let oids: (number | null)[] = [];
  if (named.some(({ length }) => length > 0)) {
    const [row] = await connection.query(
      'reading functions',
      'SELECT to_jsonb(mayfly.functions_named($1, $2::text[])) AS oids',
      [installation, named.flat()],
      signal,
    );
    oids = z.array(z.int().nullable()).parse(row?.['oids']);
  }
  return configs.map((config, index) => new Declared(config, database, oids.splice(0, named[index]?.length ?? 0)));
}
