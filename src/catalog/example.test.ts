import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { createPolicyEngine } from '../policy/engine.ts';
import { runTest } from '../policy/evaluation-tests.ts';
import { checkCatalog } from './check.ts';
import { readCatalogFiles } from './files.ts';
import { type Assembled, assembleCatalog, type LoadOptions } from './load.ts';
import { loadProviders } from './provider-registry.ts';

/** The catalog that `npm start` runs and that people copy. */
const folder = fileURLToPath(new URL('../../catalog', import.meta.url));

let files: Readonly<Record<string, string>>;
let options: LoadOptions;
let example: Assembled;

beforeAll(async () => {
  files = await readCatalogFiles(folder);
  options = { providers: await loadProviders(['postgres']), allowDev: true };
  example = assembleCatalog(files, options);
});

test('it holds, and all its policy tests pass', () => {
  const checked = checkCatalog(files, options);
  expect(checked.faults).toEqual([]);
  expect(checked.policyTests.length).toBeGreaterThan(10);
  expect(checked.policyTests.filter(({ passed }) => !passed)).toEqual([]);
});

test('it is refused by a broker that is not in dev mode', () => {
  const checked = checkCatalog(files, { ...options, allowDev: false });
  expect(checked.catalog).toBeNull();
  expect(checked.faults.map(({ message }) => message)).toContain('dev trust is accepted only by a broker in dev mode');
});

describe('each of its policies is tested', () => {
  test('dropping any one makes a policy test fail', () => {
    const { catalog, tests } = example;
    const untested = catalog.policySet.policies.filter((dropped) => {
      const policies = catalog.policySet.policies.filter(({ id }) => id !== dropped.id);
      const engine = createPolicyEngine({ ...catalog.policySet, policies }, 'without');
      try {
        return tests.every((item) => runTest(item.value, catalog, engine).passed);
      } finally {
        engine.close();
      }
    });
    expect(catalog.policySet.policies.length).toBeGreaterThan(5);
    expect(untested.map(({ id }) => id)).toEqual([]);
  });

  test('by the decision itself, not only by the names of the policies', () => {
    const { catalog, tests } = example;
    const untested = catalog.policySet.policies.filter((dropped) => {
      const policies = catalog.policySet.policies.filter(({ id }) => id !== dropped.id);
      const engine = createPolicyEngine({ ...catalog.policySet, policies }, 'without');
      try {
        return tests.every(({ value }) => {
          const { decision } = value.expect;
          return runTest({ ...value, expect: { decision } }, catalog, engine).passed;
        });
      } finally {
        engine.close();
      }
    });
    expect(untested.map(({ id }) => id)).toEqual([]);
  });
});
