import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type ContractMode, contractModes, parseModes } from '../support/contract-modes.ts';
import { parseVersions, postgresVersions, type PostgresVersion } from '../support/postgres-binaries.ts';
import { exampleBugs } from './planted/example.ts';
import { plantedBugs } from './planted/list.ts';
import { plantAll } from './planted/plant.ts';
import { providerSuites, providerTable, runProviders, type Verdicts, writeReadmes } from './runner/providers.ts';
import { type Row, type Rows, rowsOf, table } from './runner/rows.ts';
import { suitesOf } from './runner/suites.ts';
import { runVitest } from './runner/vitest.ts';

/**
 * `npm run test:contract`: the suite that any provider must pass, on each of them, as a table provider × case. With `postgres`: what
 * that provider's own suites hold besides, per mode and PostgreSQL version. Ends with 0 only when every case that is applicable passed.
 */
const usage = `usage: npm run test:contract -- [postgres] [options]
  --readme                 writes each provider's part of the table into its README
  --only TEXT              providers whose name holds this
  --bounded                the mechanism of one entitlement of each, as npm test does
  --json FILE              writes {rows: [{case, backend, ok, left_behind?, late_ms?, says?}], blanks: [{case, backend, says?}]}
  --planted                plants bugs in a copy, and ends with 0 only when the cases notice every one
with postgres:
  --versions 14,18         of ${postgresVersions.join(', ')}; default: all
  --modes definer,pool     of ${contractModes.join(', ')}; default: all`;

const root = fileURLToPath(new URL('../..', import.meta.url));

function readArguments() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      versions: { type: 'string' },
      modes: { type: 'string' },
      json: { type: 'string' },
      planted: { type: 'boolean', default: false },
      readme: { type: 'boolean', default: false },
      bounded: { type: 'boolean', default: false },
      only: { type: 'string', default: '' },
    },
  });
  const [provider] = positionals;
  if (positionals.length > 1 || (provider !== undefined && provider !== 'postgres'))
    throw new Error('only postgres has suites of its own');
  return {
    provider,
    readme: values.readme,
    bounded: values.bounded,
    only: values.only,
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

type Options = ReturnType<typeof readArguments>;
let options: Options;
try {
  options = readArguments();
} catch (error) {
  console.error(`${error instanceof Error ? error.message : String(error)}\n${usage}`);
  process.exit(2);
}
let all: Rows = { rows: [], blanks: [] };
if (options.planted) all.rows.push(...(await runPlanted(options)));
else if (options.provider === undefined) all = await runAllProviders(options);
else all = await runPostgres(options);
if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);
if (all.rows.length === 0 || all.rows.some(({ ok }) => !ok)) process.exitCode = 1;

async function runPlanted({ provider, versions }: Options): Promise<readonly Row[]> {
  const [version = 18] = versions.toReversed();
  const postgres = { MAYFLY_TEST_PG_VERSIONS: String(version), MAYFLY_TEST_MODE: 'definer' };
  const [bugs, env, backend] =
    provider === undefined
      ? [exampleBugs, { MAYFLY_TEST_EVERY_BACKEND: '1' }, 'redis-acl']
      : [plantedBugs, postgres, `definer ${version}`];
  const caught = await plantAll(root, bugs, env, (one) => {
    console.log(`${one.caught ? 'caught ' : 'MISSED '} ${one.bug}: ${one.says}`);
  });
  const good = caught.filter((one) => one.caught).length;
  console.log(`\n${good} of ${caught.length} as they must be`);
  return caught.map(({ bug, caught: ok, says }) => ({ case: `planted: ${bug}`, backend, ok, says }));
}

async function runAllProviders({ only, readme, bounded }: Options): Promise<Rows> {
  const verdicts: Verdicts = { rows: [], blanks: [] };
  for (const suite of providerSuites(root).filter((file) => file.includes(only))) {
    const { rows, blanks } = await runProviders(root, suite, bounded);
    for (const row of rows) if (!row.ok) console.error(`FAILED ${row.backend}: ${row.case}: ${row.says ?? ''}`);
    verdicts.rows.push(...rows);
    verdicts.blanks.push(...blanks);
  }
  console.log(providerTable(verdicts, [...new Set(verdicts.rows.map(({ backend }) => backend))]));
  if (readme) for (const file of writeReadmes(root, verdicts, bounded)) console.log(`written: ${file}`);
  sum(verdicts);
  return verdicts;
}

async function runPostgres({ modes, versions }: Options): Promise<Rows> {
  const found: Rows = { rows: [], blanks: [] };
  for (const mode of modes) {
    for (const version of versions) {
      const { rows, blanks } = await runBackend(mode, version);
      found.rows.push(...rows);
      found.blanks.push(...blanks);
    }
  }
  console.log(
    table(
      found,
      modes.flatMap((mode) => versions.map((version) => `${mode} ${version}`)),
    ),
  );
  sum(found);
  return found;
}

function sum({ rows, blanks }: Rows): void {
  const failed = rows.filter(({ ok }) => !ok).length;
  console.log(`\n${rows.length - failed} passed, ${failed} failed, ${blanks.length} blank`);
}
