import { expect, test } from 'vitest';
import { checkCatalog } from '../catalog/check.ts';
import { sampleProviders, sampleWith } from '../catalog/testing/sample.ts';

const schema = `entity user = { department: String };
entity record = { open?: Bool };
action read, write appliesTo {
  principal: [Mayfly::Task, user], resource: record,
  context: { now: datetime, tree?: Mayfly::Tree, caller?: { ticket?: String } }
};
`;
const policies = `
@id("reading") @max_ttl("5s") permit (principal is Mayfly::Task, action == Action::"read", resource is record)
when { principal.purpose == "reconcile.invoices" && context has tree && context.tree.live_grants < 3 };
@id("sales") permit (principal is user, action == Action::"read", resource is record) when { principal.department == "Sales" };
@id("writing") @single_use permit (principal is Mayfly::Task, action == Action::"write", resource is record)
when { context has caller && context.caller has ticket };
@id("shut") @reason("It is shut.") forbid (principal, action, resource is record) when { resource has open && !resource.open };
`;
const check = (tests: string) =>
  checkCatalog(
    sampleWith({
      'policies/schema.cedarschema': schema,
      'policies/evaluating.cedar': policies,
      'policies/tests/evaluating.yaml': tests,
      'entities.yaml':
        '- { type: user, id: ada, attrs: { department: Sales } }\n- { type: record, id: shut, attrs: { open: false } }\n',
    }),
    { providers: sampleProviders, allowDev: false },
  );
const RECORD = 'resource: { type: record, id: a }';
const TASK = 'task: { purpose: reconcile.invoices }';

test('a catalog tests what is asked by AuthZEN beside the rest', () => {
  const { faults, policyTests } = check(`
- name: a task reads
  evaluation: { ${TASK}, action: read, ${RECORD} }
  expect: { decision: permit, policies: [reading], max_ttl: 5s, single_use: false }
- name: but not with so much in its hands
  evaluation: { ${TASK}, action: read, ${RECORD}, tree: { live_grants: 3 } }
  expect: { decision: deny, policies: [] }
- name: a stored user reads
  evaluation: { subject: { type: user, id: ada }, action: read, ${RECORD} }
  expect: { decision: permit, policies: [sales] }
- name: nobody reads what is shut
  evaluation: { ${TASK}, action: read, resource: { type: record, id: shut, properties: { open: true } } }
  expect: { decision: deny, reasons: [It is shut.] }
- name: a ticket is for one call
  evaluation: { ${TASK}, action: write, ${RECORD}, context: { ticket: T-1 } }
  expect: { decision: permit, single_use: true }
- name: and a grant is asked for as ever
  request: { entitlement: ledger/read, ${TASK} }
  expect: { decision: permit }
`);
  expect(faults).toEqual([]);
  // The sample has one of its own.
  expect(policyTests.map(({ passed }) => passed)).toEqual(Array<boolean>(7).fill(true));
});

test.each([
  [
    `{ ${TASK}, action: read, ${RECORD} }`,
    'decision: deny',
    /^.*:3 .*decision: .*expected deny, got permit by reading/,
  ],
  [
    `{ ${TASK}, action: read, ${RECORD} }`,
    'decision: permit, single_use: true',
    /single_use: .*it is not for a single use/,
  ],
  [
    `{ ${TASK}, action: fly, ${RECORD} }`,
    'decision: deny',
    /^.*:2 .*can not be asked: action is not known to the catalog/,
  ],
  [
    `{ task: { purpose: nothing }, action: read, ${RECORD} }`,
    'decision: deny',
    /task\.purpose: there is no purpose nothing/,
  ],
  [
    `{ ${TASK}, action: read, ${RECORD}, tree: { held: [a/b] } }`,
    'decision: deny',
    /tree\.held: there is no entitlement a\/b/,
  ],
  [`{ action: read, ${RECORD} }`, 'decision: deny', /must say `task` or `subject`/],
  [
    `{ ${TASK}, subject: { type: user, id: ada }, action: read, ${RECORD} }`,
    'decision: deny',
    /must say `task` or `subject`/,
  ],
])('%s, where %s is expected, is a fault at its line', (evaluation, expected, says) => {
  const { catalog, faults } = check(`- name: wrong\n  evaluation: ${evaluation}\n  expect: { ${expected} }\n`);
  expect(catalog).toBeNull();
  expect(faults.map(({ path, message }) => `${path}: ${message}`)).toEqual([expect.stringMatching(says)]);
});
