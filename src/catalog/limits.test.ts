import { expect, test } from 'vitest';
import { faultLines, load, sampleFiles, sampleWith } from './testing/sample.ts';

const entitlements = `${sampleFiles['entitlements/ledger.yaml']}
- name: ledger/mail
  target: ledger
  sensitivity: restricted
  actions: [write]
  data_classes: [customers]
  sink: true
  max_ttl_seconds: 60
  provider: { template: mailer }
`;
const files = (limits: string) => sampleWith({ 'entitlements/ledger.yaml': entitlements, 'limits.yaml': limits });
const faults = (limits: string) => faultLines(files(limits));

test('limits come out with the entitlements that they are about', () => {
  const { limits } = load(
    files(`toxic:
  - { name: no-mail, one: { data_classes: [customers], sink: true }, other: { actions: [read] }, reason: Not by mail. }
at_most:
  - { name: few, grants: 3, per: tree }
  - { name: one-mail, grants: 1, per: workload, of: { targets: [ledger], sensitivities: [restricted] } }
`),
  );
  expect(limits).toEqual({
    toxic: [{ name: 'no-mail', one: ['ledger/mail'], other: ['ledger/read'], reason: 'Not by mail.' }],
    atMost: [
      { name: 'few', grants: 3, per: 'tree', of: null, reason: null },
      { name: 'one-mail', grants: 1, per: 'workload', of: ['ledger/mail'], reason: null },
    ],
  });
});

test.each(['', '# none\n', '{}'])('there may be none: %j', (text) => {
  expect(load(files(text)).limits).toEqual({ toxic: [], atMost: [] });
});

const atMost = (members: string) => `at_most:\n  - { name: few, grants: 1, per: tree, ${members} }`;

test.each([
  ['- a list', 'limits.yaml:1 $: Invalid input: expected object, received array'],
  ['others: []', 'limits.yaml:1 $.others: unknown field'],
  ['at_most: 3', 'limits.yaml:1 $.at_most: must be a list'],
  [
    'at_most:\n  - { name: few, grants: 0, per: tree }',
    'limits.yaml:2 $.at_most[0].grants: Too small: expected number to be >=1',
  ],
  [
    'at_most:\n  - { name: few, grants: 1, per: agent }',
    'limits.yaml:2 $.at_most[0].per: must be tree, workload or target',
  ],
  [atMost('of: {}'), 'limits.yaml:2 $.at_most[0].of: must say which entitlements'],
  [atMost('of: { entitlements: [ledger/raed] }'), 'limits.yaml:2 $.at_most[0].of: no entitlement has ledger/raed'],
  [atMost('of: { data_classes: [payments] }'), 'limits.yaml:2 $.at_most[0].of: no entitlement has payments'],
  [atMost('of: { sink: true, actions: [read] }'), 'limits.yaml:2 $.at_most[0].of: fits no entitlement'],
  [
    `${atMost('')}\n  - { name: few, grants: 2, per: target }`,
    'limits.yaml:3 $.at_most[1].name: few stands here twice',
  ],
  [
    'toxic:\n  - { name: self, one: { targets: [ledger] }, other: { sink: true } }',
    'limits.yaml:2 $.toxic[0].other: ledger/mail fits both sides',
  ],
])('%j is refused', (text, line) => {
  expect(faults(text)).toContain(line);
});
