import { describe, expect, test } from 'vitest';
import { slotUse } from '../policy/cedar.ts';
import type { Provider } from '../provider.ts';
import { checkCatalog } from './check.ts';
import { loadCatalog, type ProviderSchemas } from './load.ts';
import { sampleEdited, sampleFiles, sampleProviders, sampleWith } from './testing/sample.ts';

const check = (files: Readonly<Record<string, string>>) =>
  checkCatalog(files, { providers: sampleProviders, allowDev: false });
const lines = (files: Readonly<Record<string, string>>): readonly string[] =>
  check(files).faults.map(({ path, message }) => `${path}: ${message}`);
const policies = 'policies/ledger.cedar';

test('a catalog that holds is given back, with its policy tests', () => {
  const checked = check(sampleFiles);
  expect(checked.faults).toEqual([]);
  expect(checked.catalog?.digest).toMatch(/^sha256:/);
  expect(checked.policyTests).toEqual([{ name: 'reconciling reads', passed: true }]);
});

test('Cedar’s strict validation names the misspelt attribute, with file and line', () => {
  const checked = check(sampleEdited(policies, 'principal.purpose ==', 'principal.purpos =='));
  expect(checked.catalog).toBeNull();
  expect(checked.faults).toEqual([
    {
      path: `${policies}:3`,
      message: 'reads: attribute `purpos` on entity type `Mayfly::Task` not found (did you mean `purpose`?)',
    },
  ]);
});

test('faults of YAML and of Cedar are told together', () => {
  const files = {
    ...sampleEdited(policies, 'principal.purpose ==', 'principal.purpos =='),
    'purposes.yaml': '- name: X\n',
  };
  expect(lines(files).map((line) => line.replace(/: .*/, ''))).toEqual([
    'policies/ledger.cedar:3',
    'purposes.yaml:1 $[0].name',
    'purposes.yaml:1 $[0].description',
    'purposes.yaml:1 $[0].max_life_seconds',
    'trust.yaml:6 $.task_issuers[0].purposes[0]',
  ]);
});

test('a policy about an entitlement that is not there is refused: a forbid so misspelt would forbid nothing', () => {
  expect(lines(sampleEdited(policies, 'ledger/read', 'ledger/raed'))).toEqual([
    `${policies}:2: reads: there is no entitlement ledger/raed`,
  ]);
});

test('what a provider finds in all of its targets together is refused by file, though an active revision may have it', () => {
  const [sample] = [...sampleProviders.values()];
  const files = {
    ...sampleFiles,
    'targets/second.yaml': (sampleFiles['targets/ledger.yaml'] ?? '').replace('name: ledger', 'name: second'),
  };
  const providersWith = (targetFaults: NonNullable<Provider['targetFaults']>): ProviderSchemas =>
    new Map(sample === undefined ? [] : [['sample', { ...sample, targetFaults }]]);
  const both = providersWith((targets) => new Map([['second', [`shares with ${[...targets.keys()].join(' and ')}`]]]));
  expect(checkCatalog(files, { providers: both, allowDev: false }).faults).toEqual([
    {
      path: expect.stringMatching(/^targets\/second\.yaml:\d+ \$\.connection$/),
      message: 'shares with ledger and second',
    },
  ]);
  expect(loadCatalog(files, { providers: both, allowDev: false }).targets.size).toBe(2);
  const throwing = providersWith(() => {
    throw new Error('hunter-2');
  });
  expect(checkCatalog(files, { providers: throwing, allowDev: false }).faults.map(({ message }) => message)).toEqual([
    ...['the provider failed to check this', 'the provider failed to check this'],
  ]);
});

test('what a provider finds in an entitlement that its section alone does not show is refused by line, and kept to itself', () => {
  const faultsOf = (faults: (of: { name: string; params?: object }) => readonly string[]) => {
    const [sample] = [...sampleProviders.values()].map((provider) => ({ ...provider, faults }));
    const providers: ProviderSchemas = new Map(sample === undefined ? [] : [['sample', sample]]);
    return checkCatalog(sampleFiles, { providers, allowDev: false }).faults.map(({ message }) => message);
  };
  expect(faultsOf(({ name, params = {} }) => [`${name} with ${Object.keys(params).join()}`])).toEqual([
    'ledger/read with tenant',
  ]);
  const throwing = () => {
    throw new Error('it holds a secret');
  };
  expect(faultsOf(throwing)).toEqual(['the provider failed to check this']);
});

describe('params that the target’s provider can not bind', () => {
  const providers: ProviderSchemas = new Map(
    [...sampleProviders].map(([name, { type, targetSchema, entitlementSchema }]) => [
      name,
      { type, targetSchema, entitlementSchema },
    ]),
  );
  const faultsOf = (files: Readonly<Record<string, string>>) =>
    checkCatalog(files, { providers, allowDev: false }).faults;

  test('are refused where they are declared: every ask would fail at the target', () => {
    expect(faultsOf(sampleFiles)).toEqual([
      {
        path: 'entitlements/ledger.yaml:6 $[0].params',
        message: 'the provider sample can not bind params: every ask for this would be refused',
      },
    ]);
  });

  test('are no fault where there are none', () => {
    const line = '  params: { tenant: { type: string, pattern: "[a-z]{1,40}" } }\n';
    expect(faultsOf(sampleEdited('entitlements/ledger.yaml', line, ''))).toEqual([]);
    expect(faultsOf(sampleEdited('entitlements/ledger.yaml', line, '  params: {}\n'))).toEqual([]);
  });

  test('do not make an active revision unreadable: its grants are ended by it', () => {
    expect(loadCatalog(sampleFiles, { providers, allowDev: false }).entitlements.has('ledger/read')).toBe(true);
  });
});

test('a policy about a purpose that is not there is refused', () => {
  expect(lines(sampleEdited(policies, '"reconcile.invoices"', '"reconcile.invoice"'))).toEqual([
    `${policies}:3: reads: no purpose is called "reconcile.invoice"`,
  ]);
});

test('one @id in two files is refused at the second', () => {
  expect(lines(sampleWith({ 'policies/more.cedar': sampleFiles[policies] ?? '' }))).toEqual([
    `policies/more.cedar:1: @id("reads") stands at ${policies}:1 already`,
  ]);
});

test('a policy test that fails is a fault at its line', () => {
  const checked = check(sampleEdited('policies/tests/ledger.yaml', 'decision: permit', 'decision: deny'));
  expect(checked.catalog).toBeNull();
  expect(checked.policyTests).toEqual([{ name: 'reconciling reads', passed: false }]);
  expect(checked.faults).toEqual([
    {
      path: 'policies/tests/ledger.yaml:3 $[0].expect.decision',
      message: '"reconciling reads": expected deny, got permit by reads',
    },
  ]);
});

test('a policy test with a wrong cap, wrong policies or wrong reasons fails', () => {
  const expectation = '{ decision: permit, policies: [other], max_ttl: 4m, reasons: [no] }';
  const files = sampleEdited(
    'policies/tests/ledger.yaml',
    '{ decision: permit, policies: [reads], max_ttl: 5m }',
    expectation,
  );
  expect(lines(files)).toEqual([
    'policies/tests/ledger.yaml:3 $[0].expect.policies: "reconciling reads": it was decided by reads',
    'policies/tests/ledger.yaml:3 $[0].expect.reasons: "reconciling reads": the reasons are []',
    'policies/tests/ledger.yaml:3 $[0].expect.max_ttl: "reconciling reads": the cap is 300s',
  ]);
});

test('a policy test about things that are not there fails by name', () => {
  const request = '{ entitlement: a/b, task: { purpose: x.y, issuer: nobody } }';
  const from = '{ entitlement: ledger/read, task: { purpose: reconcile.invoices } }';
  expect(lines(sampleEdited('policies/tests/ledger.yaml', from, request))).toEqual([
    'policies/tests/ledger.yaml:2 $[0].request.entitlement: there is no entitlement a/b',
    'policies/tests/ledger.yaml:2 $[0].request.task.purpose: there is no purpose x.y',
    'policies/tests/ledger.yaml:2 $[0].request.task.issuer: there is no issuer nobody',
  ]);
});

test('a policy test with unknown fields is refused as every other file is', () => {
  const files = sampleEdited('policies/tests/ledger.yaml', 'task: {', 'colour: red, task: { ');
  expect(lines(files)).toEqual(['policies/tests/ledger.yaml:2 $[0].request.colour: unknown field']);
});

test('checking again and again leaves nothing open in Cedar', () => {
  check(sampleFiles);
  const before = slotUse();
  for (let round = 0; round < 20; round += 1) check(sampleFiles);
  expect(slotUse()).toEqual(before);
});
