import { z } from 'zod';
import { type CheckStep } from '../../src/provider.ts';
import { expireOverdue } from './guarantee.ts';
import { boundParams } from './prepare-bound.ts';
import { says } from './probe.ts';
import type { PostgresEntitlement } from './schema.ts';
import type { Target } from './target.ts';

const names = z.array(z.string());
const rowsSchema = z.object({
  params: z.record(z.string(), z.string()),
  record_statements: z.boolean(),
  expects: z.array(z.object({ name: z.string() })),
  faults: names,
  bypasses: z.boolean(),
  owns: names,
  views: names,
  kin: names,
  unbound_rights: names,
  definer_functions: names,
});
type Rows = z.infer<typeof rowsSchema>;

/** What bounds the rows of an entitlement, what is recorded of its use, and what ends its sessions without the broker. */
export async function boundSteps(
  target: Target,
  config: PostgresEntitlement | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  try {
    const { rows, age } = await target.issuing.useTwice(signal, async ({ connection }) => {
      const [row] = await connection.query<{ rows: unknown; age: number | null }>(
        'surveying rows',
        'SELECT mayfly.expire_age() AS age, mayfly.rows_survey($1) AS rows',
        [config?.template ?? null],
        signal,
      );
      return { rows: row?.rows ?? null, age: row?.age ?? null };
    });
    const seen = rows === null ? null : rowsSchema.parse(rows);
    return [
      expireStep(age),
      ...(config === null || seen === null ? [] : [...rowSteps(config, seen), ...recordSteps(config, seen)]),
    ];
  } catch (error) {
    return [{ step: 'row_security', ok: false, says: says(error) }];
  }
}

function expireStep(age: number | null): CheckStep {
  const ran = age === null ? '' : `mayfly.expire() last ran ${Math.max(0, Math.round(age))} s ago`;
  if (age !== null && age <= expireOverdue) return { step: 'expire', ok: true, says: ran };
  return {
    step: 'expire',
    // Once it ran, somebody relies on it.
    ok: age === null,
    says:
      age === null
        ? 'warning: mayfly.expire() has never run: with the broker down, open sessions outlive their deadline'
        : `${ran}: its schedule has stopped`,
  };
}

function rowSteps(config: PostgresEntitlement, seen: Rows): CheckStep[] {
  const bound = boundParams(config);
  const prepared = Object.keys(seen.params).sort();
  const tables = new Set(config.row_security.map(({ schema, table }) => `${schema}.${table}`));
  if (bound.length === 0 && prepared.length === 0) return [];
  const some = (list: readonly string[], what: string): string[] =>
    list.length > 0 ? [`${what} ${list.join(', ')}`] : [];
  const faults = [
    ...(JSON.stringify(bound) === JSON.stringify(prepared) && tables.size === seen.expects.length
      ? []
      : ['the target is prepared for other params (mayfly target prepare)']),
    ...seen.faults,
    ...(seen.bypasses ? ['the template bypasses row security'] : []),
    ...some(seen.owns, 'the template counts as owner, whom row security does not bind, of'),
    ...some(seen.views, 'views that read with the rights of their owner reach the rows (security_invoker is off):'),
    ...some(seen.kin, 'partitions, children or parents that are not in row_security reach the rows:'),
    ...some(seen.unbound_rights, 'TRUNCATE, TRIGGER or REFERENCES, which no policy bounds, are allowed on'),
  ];
  return [
    {
      step: 'row_security',
      ok: faults.length === 0,
      says:
        faults.length === 0
          ? `rows are bounded by ${bound.join(', ')} on ${seen.expects.map(({ name }) => name).join(', ') || 'no table of ours'}`
          : faults.join('; '),
    },
    ...(seen.definer_functions.length > 0
      ? [
          {
            step: 'row_security',
            ok: true,
            says: `warning: these functions see what their owner sees: ${seen.definer_functions.join(', ')}`,
          },
        ]
      : []),
  ];
}

function recordSteps(config: PostgresEntitlement, seen: Rows): CheckStep[] {
  const wanted = config.record === 'statements';
  if (wanted !== seen.record_statements) {
    return [
      { step: 'record', ok: false, says: `statements are ${wanted ? 'not ' : ''}recorded (mayfly target prepare)` },
    ];
  }
  return wanted
    ? [
        {
          step: 'record',
          ok: true,
          says: 'warning: every statement is in the log of the server, with the literals in it',
        },
      ]
    : [];
}
