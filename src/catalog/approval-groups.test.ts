import { expect, test } from 'vitest';
import { checkCatalog } from './check.ts';
import { faultLines, load, sampleEdited, sampleFiles, sampleProviders, sampleWith } from './testing/sample.ts';

const lines = (files: Readonly<Record<string, string>>): readonly string[] =>
  checkCatalog(files, { providers: sampleProviders, allowDev: false }).faults.map(
    ({ path, message }) => `${path}: ${message}`,
  );
const cedar = sampleFiles['policies/ledger.cedar'] ?? '';
const approved = {
  'policies/ledger.cedar': cedar.replace('@id("reads")', '@id("reads") @require_approval("finance")'),
};
const roles = (text: string) => ({
  'trust.yaml': (sampleFiles['trust.yaml'] ?? '').replace('roles: { Platform Team: [viewer, admin] }', text),
});
const nobody = 'nobody can approve as finance: no source of operators with the role approver has it under `groups`';

test('a group that some operator can be in, and approve, is one', () => {
  const { catalog, faults } = checkCatalog(
    sampleWith({
      ...approved,
      ...roles('roles: { leads: [approver] }, groups: { leads: [finance] }'.replace(', groups', '\n    groups')),
    }),
    { providers: sampleProviders, allowDev: false },
  );
  expect(faults).toEqual([]);
  expect(catalog?.trust.operators[0]?.groups).toEqual({ leads: ['finance'] });
});

test.each([
  ['there are no groups', 'roles: { leads: [approver] }'],
  ['it is another group', 'roles: { leads: [approver] }\n    groups: { leads: [security] }'],
  ['nobody there approves', 'roles: { leads: [viewer, operator] }\n    groups: { leads: [finance] }'],
])('one that nobody can be in is refused: %s', (_, text) => {
  expect(lines(sampleWith({ ...approved, ...roles(text) }))).toEqual([`policies/ledger.cedar:1: reads: ${nobody}`]);
});

test('a limit that wants an approval is held to the same', () => {
  const rule = 'approvals:\n  - { name: exports, of: { targets: [ledger] }, group: finance }';
  expect(lines(sampleWith({ 'limits.yaml': rule }))).toEqual([`limits.yaml:1: exports: ${nobody}`]);
  const files = sampleWith({
    ...roles('roles: { leads: [admin] }\n    groups: { leads: [finance] }'),
    'limits.yaml': rule,
  });
  expect(lines(files)).toEqual([]);
  expect(load(files).limits.approvals).toEqual([{ name: 'exports', of: ['ledger/read'], group: 'finance' }]);
});

test.each([
  [
    'approvals:\n  - { name: x, of: { targets: [nowhere] }, group: finance }',
    'limits.yaml:2 $.approvals[0].of: no entitlement has nowhere',
  ],
  [
    'approvals:\n  - { name: x, of: { targets: [ledger] }, group: F }',
    'limits.yaml:2 $.approvals[0].group: must be a name: lower-case letters, digits and dashes, at most 63',
  ],
])('%j is refused', (text, line) => {
  expect(faultLines(sampleWith({ 'limits.yaml': text }))).toContain(line);
});

const mapped = (subjects: string) =>
  sampleEdited('trust.yaml', '    max_task_seconds: 3600\n', `    max_task_seconds: 3600\n    subjects: ${subjects}\n`);

test('an issuer says who its subjects are among operators', () => {
  expect(load(mapped('[{ operators: staff, prefix: "user:" }]')).trust.taskIssuers[0]?.subjects).toEqual([
    { operators: 'staff', prefix: 'user:' },
  ]);
  expect(load(mapped('[{ operators: staff }]')).trust.taskIssuers[0]?.subjects).toEqual([
    { operators: 'staff', prefix: '' },
  ]);
});

test.each([
  ['[{ operators: others }]', 'there is no source of operators others'],
  ['[{ operators: staff }, { operators: staff, prefix: x }]', 'stands here twice'],
  ['[{ operators: cluster }]', 'there is no source of operators cluster'],
])('not so: %s', (subjects, message) => {
  expect(faultLines(mapped(subjects)).join()).toContain(message);
});
