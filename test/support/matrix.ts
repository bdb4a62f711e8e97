import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { PlantedBug } from '../contract/planted/list.ts';
import { plantAll } from '../contract/planted/plant.ts';
import { type Row, rowsOf } from '../contract/runner/rows.ts';
import { runVitest } from '../contract/runner/vitest.ts';

/** A table of cases × where alarms stand, run by one suite. */
export interface Matrix {
  /** `npm run <name>`. */
  readonly name: string;
  /** What the first column is called. */
  readonly of: string;
  readonly suite: string;
  /** The suite runs all its cases where this variable names the backend. */
  readonly backendVariable: string;
  readonly concurrency: number;
  readonly plantedBugs: readonly PlantedBug[];
  /** For the suite, whole. */
  readonly env?: Readonly<Record<string, string>>;
  /** For the suite, with bugs in the tree. */
  readonly plantedEnv: Readonly<Record<string, string>>;
  /** Options of its own: what each says, and the variable that it sets. */
  readonly options?: Readonly<Record<string, { readonly says: string; readonly variable: string }>>;
}

const root = fileURLToPath(new URL('../..', import.meta.url));
const backends = ['postgres', 'redis'];

/** Reads the command line, runs what it asks for and prints it. Ends with 0 only when nothing stayed behind. */
export async function runMatrix(matrix: Matrix): Promise<void> {
  let options: ReturnType<typeof readArguments>;
  try {
    options = readArguments(matrix);
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${usage(matrix)}`);
    process.exit(2);
  }
  const rows: Row[] = [];
  if (options.planted) {
    const env = { [matrix.backendVariable]: 'postgres', ...matrix.plantedEnv };
    const caught = await plantAll(root, matrix.plantedBugs, env, (one) => {
      console.log(`${one.caught ? 'caught ' : 'MISSED '} ${one.bug}: ${one.says}`);
    });
    rows.push(
      ...caught.map(({ bug, caught: ok, says }) => ({ case: `planted: ${bug}`, backend: 'postgres', ok, says })),
    );
    console.log(`\n${rows.filter(({ ok }) => ok).length} of ${rows.length} as they must be`);
  } else {
    for (const backend of options.backends) rows.push(...(await runBackend(matrix, backend, options)));
    console.log(table(rows, matrix.of));
    const failed = rows.filter(({ ok }) => !ok).length;
    console.log(`\n${rows.length - failed} passed, ${failed} failed`);
  }
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ rows }, null, 2)}\n`);
  if (rows.length === 0 || rows.some(({ ok }) => !ok)) process.exitCode = 1;
}

function usage({ name, options = {} }: Matrix): string {
  const more = Object.entries(options).map(([option, { says }]) => `  --${option.padEnd(25)}${says}\n`);
  return `usage: npm run ${name} -- [options]
  --backends postgres,redis  where alarms stand; default: both
  --only TEXT                cases whose name holds this
  --json FILE                writes {rows: [{case, backend, ok, left_behind?, late_ms?, says?}]}
${more.join('')}  --planted                  plants bugs in a copy, and ends with 0 only when the cases notice every one`;
}

interface Arguments {
  readonly backends: readonly string[];
  readonly only: string | undefined;
  readonly json: string | undefined;
  readonly planted: boolean;
  readonly env: Readonly<Record<string, string>>;
}

function readArguments({ options: own = {} }: Matrix): Arguments {
  const { values } = parseArgs({
    options: {
      backends: { type: 'string', default: backends.join(',') },
      only: { type: 'string' },
      json: { type: 'string' },
      planted: { type: 'boolean', default: false },
      ...Object.fromEntries(Object.keys(own).map((name) => [name, { type: 'string' } as const])),
    },
  });
  const chosen = values.backends.split(',');
  const unknown = chosen.find((backend) => !backends.includes(backend));
  if (unknown !== undefined) throw new Error(`no such backend: ${unknown}`);
  const given = new Map(Object.entries(values));
  const env = Object.entries(own).flatMap(([name, { variable }]) => {
    const value = given.get(name);
    return typeof value === 'string' ? [[variable, value]] : [];
  });
  const { only, json, planted } = values;
  return { backends: chosen, only, json, planted, env: Object.fromEntries(env) };
}

/** Case, backend, ok, left_behind, late_ms, as Markdown. */
function table(rows: readonly Row[], of: string): string {
  const lines = rows.map((row) => [
    row.case.replaceAll('|', '\\|'),
    row.backend,
    row.ok ? 'yes' : '**NO**',
    row.left_behind === undefined ? '' : String(row.left_behind),
    row.late_ms === undefined ? '' : row.late_ms.toFixed(0),
  ]);
  const header = [of, 'backend', 'ok', 'left_behind', 'late_ms'];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

async function runBackend(matrix: Matrix, backend: string, { only, env }: Arguments): Promise<Row[]> {
  const args = ['--project', 'system', '--maxConcurrency', String(matrix.concurrency), matrix.suite];
  const pattern = only === undefined ? {} : { pattern: only.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&') };
  const all = { ...matrix.env, ...env, [matrix.backendVariable]: backend };
  const { rows, blanks } = rowsOf(await runVitest(root, args, all, pattern), backend);
  // A case that did not run has shown nothing; one that was not asked for is no case.
  const skipped = only === undefined ? blanks.map((blank) => ({ ...blank, ok: false, says: 'it did not run' })) : [];
  for (const row of rows) if (!row.ok) console.error(`FAILED ${backend}: ${row.case}: ${row.says ?? ''}`);
  return [...rows, ...skipped];
}
