import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { plantAll } from '../contract/planted/plant.ts';
import { type Row, rowsOf } from '../contract/runner/rows.ts';
import { runVitest } from '../contract/runner/vitest.ts';
import { plantedBugs } from './planted.ts';

/**
 * `npm run test:crash`: kills the broker at every step that it has, with alarms in the store and in Redis, and looks from outside at
 * what stayed behind. Ends with 0 only when nothing did.
 */
const usage = `usage: npm run test:crash -- [options]
  --backends postgres,redis  where alarms stand; default: both
  --only TEXT                cases whose name holds this
  --json FILE                writes {rows: [{case, backend, ok, left_behind?, late_ms?, says?}]}
  --planted                  plants bugs in a copy, and ends with 0 only when the cases notice every one`;

const root = fileURLToPath(new URL('../..', import.meta.url));
const backends = ['postgres', 'redis'];

function readArguments() {
  const { values } = parseArgs({
    options: {
      backends: { type: 'string', default: backends.join(',') },
      only: { type: 'string' },
      json: { type: 'string' },
      planted: { type: 'boolean', default: false },
    },
  });
  const chosen = values.backends.split(',');
  const unknown = chosen.find((backend) => !backends.includes(backend));
  if (unknown !== undefined) throw new Error(`no such backend: ${unknown}`);
  return { ...values, backends: chosen };
}

/** point, backend, ok, left_behind, late_ms, as Markdown. */
function table(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.case.replaceAll('|', '\\|'),
    row.backend,
    row.ok ? 'yes' : '**NO**',
    row.left_behind === undefined ? '' : String(row.left_behind),
    row.late_ms === undefined ? '' : row.late_ms.toFixed(0),
  ]);
  const header = ['point', 'backend', 'ok', 'left_behind', 'late_ms'];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

async function runBackend(backend: string, only: string | undefined): Promise<Row[]> {
  const args = ['--project', 'system', '--maxConcurrency', '8', 'test/crash/crash.test.ts'];
  const pattern = only === undefined ? {} : { pattern: only.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&') };
  const { rows, blanks } = rowsOf(await runVitest(root, args, { MAYFLY_CRASH_BACKEND: backend }, pattern), backend);
  // A case that did not run has shown nothing; one that was not asked for is no case.
  const skipped = only === undefined ? blanks.map((blank) => ({ ...blank, ok: false, says: 'it did not run' })) : [];
  for (const row of rows) if (!row.ok) console.error(`FAILED ${backend}: ${row.case}: ${row.says ?? ''}`);
  return [...rows, ...skipped];
}

let options: ReturnType<typeof readArguments>;
try {
  options = readArguments();
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exit(2);
}
const rows: Row[] = [];
if (options.planted) {
  const env = { MAYFLY_CRASH_BACKEND: 'postgres', MAYFLY_CRASH_PATIENCE: '20' };
  const caught = await plantAll(root, plantedBugs, env, (one) => {
    console.log(`${one.caught ? 'caught ' : 'MISSED '} ${one.bug}: ${one.says}`);
  });
  rows.push(...caught.map(({ bug, caught: ok, says }) => ({ case: `planted: ${bug}`, backend: 'postgres', ok, says })));
  console.log(`\n${rows.filter(({ ok }) => ok).length} of ${rows.length} as they must be`);
} else {
  for (const backend of options.backends) rows.push(...(await runBackend(backend, options.only)));
  console.log(table(rows));
  const failed = rows.filter(({ ok }) => !ok).length;
  console.log(`\n${rows.length - failed} passed, ${failed} failed`);
}
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ rows }, null, 2)}\n`);
if (rows.length === 0 || rows.some(({ ok }) => !ok)) process.exitCode = 1;
