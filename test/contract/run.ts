import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type ContractMode, contractModes, parseModes } from '../support/contract-modes.ts';
import { parseVersions, postgresVersions, type PostgresVersion } from '../support/postgres-binaries.ts';
import { plantedBugs } from './planted/list.ts';
import { plantAll } from './planted/plant.ts';
import { type Rows, rowsOf, table } from './runner/rows.ts';
import { suitesOf } from './runner/suites.ts';
import { runVitest } from './runner/vitest.ts';

/**
 * `npm run test:contract -- postgres`: every contract suite per mode and PostgreSQL version, as a table of cases. Ends
 * with 0 only when every case passed on every backend that was asked for.
 */
const usage = `usage: npm run test:contract -- postgres [options]
  --versions 14,18         of ${postgresVersions.join(', ')}; default: all
  --modes definer,pool     of ${contractModes.join(', ')}; default: all
  --json FILE              writes {rows: [{case, backend, ok, left_behind?, late_ms?, says?}], blanks: [{case, backend}]}
  --planted                plants bugs in a copy, and ends with 0 only when the cases notice every one`;

const root = fileURLToPath(new URL('../..', import.meta.url));

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      versions: { type: 'string' },
      modes: { type: 'string' },
      json: { type: 'string' },
      planted: { type: 'boolean', default: false },
    },
  });
  if (positionals.length !== 1 || positionals[0] !== 'postgres') throw new Error('the provider must be postgres');
  return {
    versions: values.versions === undefined ? postgresVersions : parseVersions(values.versions),
    modes: values.modes === undefined ? contractModes : parseModes(values.modes),
    json: values.json,
    planted: values.planted,
  };
}

/** One backend. Suites of a missing server fail by themselves, since the version is asked for by name. */
async function runBackend(mode: ContractMode, version: PostgresVersion): Promise<Rows> {
  const backend = `${mode} ${version}`;
  const files = suitesOf(mode, root);
  if (files.length === 0) {
    return { rows: [{ case: 'the suites of this mode', backend, ok: false, says: 'not built' }], blanks: [] };
  }
  const env = { MAYFLY_TEST_PG_VERSIONS: String(version), MAYFLY_TEST_MODE: mode };
  const began = performance.now();
  const rows = rowsOf(await runVitest(root, ['--project', 'system', ...files], env), backend);
  const failed = rows.rows.filter(({ ok }) => !ok);
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.error(`${backend}: ${rows.rows.length} cases, ${failed.length} failed (${seconds} s)`);
  for (const row of failed) console.error(`  FAILED ${row.case}: ${row.says ?? ''}`);
  return rows;
}

let options: ReturnType<typeof readArguments>;
try {
  options = readArguments();
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exit(2);
}
let all: Rows = { rows: [], blanks: [] };
if (options.planted) {
  const [version = 18] = options.versions.toReversed();
  const env = { MAYFLY_TEST_PG_VERSIONS: String(version), MAYFLY_TEST_MODE: 'definer' };
  const caught = await plantAll(root, plantedBugs, env, (one) => {
    console.log(`${one.caught ? 'caught ' : 'MISSED '} ${one.bug}: ${one.says}`);
  });
  const backend = `definer ${version}`;
  all.rows.push(...caught.map(({ bug, caught: ok, says }) => ({ case: `planted: ${bug}`, backend, ok, says })));
  const good = caught.filter(({ caught: ok }) => ok).length;
  console.log(`\n${good} of ${caught.length} as they must be`);
} else {
  for (const mode of options.modes) {
    for (const version of options.versions) {
      const { rows, blanks } = await runBackend(mode, version);
      all = { rows: [...all.rows, ...rows], blanks: [...all.blanks, ...blanks] };
    }
  }
  const backends = options.modes.flatMap((mode) => options.versions.map((version) => `${mode} ${version}`));
  console.log(table(all, backends));
  const failed = all.rows.filter(({ ok }) => !ok).length;
  console.log(`\n${all.rows.length - failed} passed, ${failed} failed, ${all.blanks.length} blank`);
}
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);
if (all.rows.length === 0 || all.rows.some(({ ok }) => !ok)) process.exitCode = 1;
