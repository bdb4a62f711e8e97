import type { FieldError } from '../domain/errors.ts';
import { createPolicyEngine } from '../policy/engine.ts';
import { runTest } from '../policy/evaluation-tests.ts';
import type { PolicyTestResult } from '../policy/policy-tests.ts';
import { policySetFaults, unfilledContext } from '../policy/validate.ts';
import { approvalFaults } from './approval-groups.ts';
import { type Fault, fieldErrors } from './faults.ts';
import { type Assembled, assembleCatalog, type LoadOptions } from './load.ts';
import type { Catalog } from './types.ts';

/** They run in one turn of the event loop: by ten policies in half a second, by a thousand in some. */
const MOST_TESTS = 2_000;

export interface CheckedCatalog {
  /** Null when there is any fault. */
  readonly catalog: Catalog | null;
  /** `file:line $.path` and a sentence each, in file order. */
  readonly faults: readonly FieldError[];
  /** Run only when nothing else is wrong. A failed test is a fault too. */
  readonly policyTests: readonly Pick<PolicyTestResult, 'name' | 'passed'>[];
}

/**
 * Everything that can be said of a catalog without a target or a store: {@link loadCatalog}, Cedar's strict
 * validation, names in policies, params that a provider can not bind, and the catalog's own policy tests. Resolves no secret.
 */
export function checkCatalog(files: Readonly<Record<string, string>>, options: LoadOptions): CheckedCatalog {
  const assembled = assembleCatalog(files, options);
  const faults = [...assembled.faults, ...assembled.unbound, ...policyFaults(assembled)];
  if (faults.length > 0) return { catalog: null, faults: fieldErrors(faults), policyTests: [] };
  const { tests } = assembled;
  if (tests.length > MOST_TESTS) {
    const message = `the catalog has ${tests.length} policy tests, and may have ${MOST_TESTS}`;
    return {
      catalog: null,
      faults: fieldErrors([{ file: 'policies/tests', line: 1, path: '', message }]),
      policyTests: [],
    };
  }
  const { results, failures } = runTests(assembled);
  return {
    catalog: failures.length === 0 ? assembled.catalog : null,
    faults: fieldErrors(failures),
    policyTests: results.map(({ name, passed }) => ({ name, passed })),
  };
}

function policyFaults({ catalog, vocabulary, faults }: Assembled): readonly Fault[] {
  // Names that a broken file would have declared are not missing: names are compared once the rest holds.
  const names = faults.every(({ file }) => file.startsWith('policies/')) ? vocabulary : undefined;
  const found = policySetFaults(catalog.policySet, names);
  const unfilled = found.length > 0 ? [] : unfilledContext(catalog.policySet);
  // Of a trust.yaml that could not be read nobody knows who is in which group.
  const unapproved = names === undefined ? [] : approvalFaults(catalog);
  return [...[...found, ...unfilled].map((fault) => ({ ...fault, path: '' })), ...unapproved];
}

function runTests({ catalog, tests }: Assembled): { results: PolicyTestResult[]; failures: Fault[] } {
  const engine = createPolicyEngine(catalog.policySet, catalog.digest);
  try {
    const results = tests.map((test) => runTest(test.value, catalog, engine));
    const failures = tests.flatMap((test, index) =>
      (results[index]?.failures ?? []).map(({ path, message }) => test.fault(path, message)),
    );
    return { results, failures };
  } finally {
    engine.close();
  }
}
