import { expect, test } from 'vitest';
import type { Catalog, EntitlementDefinition } from '../catalog/types.ts';
import type { DecisionId, GrantId, TaskId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import { sampleSeen } from '../http/testing/samples.ts';
import type { DecisionRequest, PolicyDecision } from '../policy/types.ts';
import type { Living } from '../store/drift.ts';
import type { Ancestor, TaskState } from '../store/tasks.ts';
import { retainGrant } from './retain-grant.ts';
import { trusting } from './testing/trusting.ts';

const READ = 'ledger-db/read-invoices';
const now = new Date('2026-11-22T18:00:00Z');
const later = new Date('2026-11-22T19:00:00Z');

const entitlement: EntitlementDefinition = {
  ...{ name: READ, target: 'ledger-db', sensitivity: 'restricted', actions: ['read'], sink: true, provider: {} },
  dataClasses: ['invoices'],
  ...{ maxTtlSeconds: 60, params: {}, onOwnedObjects: 'drop', sealedDelivery: 'optional' },
};
const catalog: Catalog = {
  ...{ digest: 'sha256:00', files: {}, ...trusting, policySet: { schema: '', policies: [], entities: [] } },
  toolGateways: [],
  signalSources: [],
  changeControl: { serial: null, fourEyes: [] },
  webhooks: [],
  limits: { toxic: [], atMost: [] },
  targets: new Map(
    ['ledger-db', 'other-db'].map((name) => [
      name,
      {
        ...{ name, provider: 'sample', connection: {}, environment: 'demo', owner: 'team' },
        ...{ sensitivity: 'confidential', labels: {} },
      },
    ]),
  ),
  entitlements: new Map([[READ, entitlement]]),
};
const living: Living = {
  ...{ id: 'g' as GrantId, taskId: 't' as TaskId, decisionId: 'd' as DecisionId, handle: 'h' },
  ...{ entitlement: READ, target: 'ledger-db', guarantee: 'immediate', sink: true, approved: [], signalled: null },
  deadline: new Date(now.getTime() + 90_500),
};

function state(task: Partial<Task> = {}, ancestors?: readonly Ancestor[]): TaskState {
  const seen = sampleSeen({
    ...{ phase: 'plan', live_grants: 5, sensitive_sinks: 2, grants: 9, own_live_grants: 2, own_grants: 3 },
    ...{
      held: { [READ]: 1, 'crm/read': 4 },
      touched: ['crm', 'ledger-db'],
      given: { [READ]: [3, 1], 'crm/read': [6, 2] },
    },
  });
  return {
    task: {
      ...{ id: 't' as TaskId, rootId: 't' as TaskId, parentId: null, depth: 0, maxDepth: 0, externalId: 'e', jti: 'j' },
      ...{ issuer: 'https://orchestrator.example', purpose: 'reconcile.invoices', phase: 'plan', subject: 'user:dana' },
      ...{ workload: { source: 'dev', subject: 'agent-recon' }, keyThumbprint: null, instance: null, txn: null },
      ...{ deliveryThumbprint: null, intentHash: null, createdAt: now, notAfter: later, endedAt: null, endedBy: null },
      ...{ state: 'active', ceiling: { entitlements: [READ], params: {}, maxTtlSeconds: null } },
      ...task,
    },
    now,
    seen: ancestors === undefined ? seen : { ...seen, ancestors },
    ...{ heldSeconds: 0, fingerprint: '' },
    killed: false,
    heard: {},
  };
}

/** A policy that says this, and what it was asked. */
function policy(says: Partial<PolicyDecision> = {}) {
  const asked: DecisionRequest[] = [];
  const decision = { permitted: true, policies: ['p'], maxTtlSeconds: null, reasons: [] };
  const demands = { perCall: false, sealedDelivery: false, approvalGroups: [] };
  return {
    asked,
    digest: catalog.digest,
    decide: (request: DecisionRequest) => {
      asked.push(request);
      return { ...decision, ...demands, errors: [], inputs: {}, ...says };
    },
  };
}
const retain = (read: TaskState, by: Partial<Catalog> = {}, says = policy()) =>
  retainGrant({ catalog: { ...catalog, ...by }, policy: says }, living, read);

test('it is asked as when it was issued: with what is left of its life, and what its tree holds beside it', () => {
  const says = policy();
  expect(retain(state(), {}, says)).toEqual({ kind: 'stays' });
  expect(says.asked).toMatchObject([{ action: 'retain', ttlSeconds: 90, guarantee: 'immediate' }]);
  expect(says.asked[0]?.history).toMatchObject({
    own: { liveGrants: 1, grants: 2, grantsOfThis: 0 },
    tree: {
      grantsOfThis: 2,
      liveGrants: 4,
      grants: 8,
      sensitiveSinks: 1,
      held: ['crm/read'],
      dataClasses: [],
      touched: ['crm', 'ledger-db'],
    },
  });
});

test('a cap that would give less than is left does not end it', () => {
  expect(retain(state(), {}, policy({ maxTtlSeconds: 1 }))).toEqual({ kind: 'stays' });
});

test('a denial ends it by the policies that determined it, and a failure by nothing', () => {
  const denied = policy({ permitted: false, policies: ['no'] });
  expect(retain(state(), {}, denied)).toMatchObject({
    ...{ kind: 'drifted', because: 'denied_by_policy', policy: { policies: ['no'] } },
  });
  expect(retain(state(), {}, policy({ permitted: false, errors: ['overflow'] }))).toEqual({
    ...{ kind: 'failed', errors: ['overflow'] },
  });
  const broken = {
    digest: '',
    decide: () => {
      throw new Error('no memory');
    },
  };
  expect(retainGrant({ catalog, policy: broken }, living, state())).toEqual({ kind: 'failed', errors: ['no memory'] });
});

const above: Ancestor = {
  ...{ state: 'active', phase: 'plan', max_depth: 1, not_after_millis: later.getTime() },
  ceiling: { entitlements: [READ], params: {}, maxTtlSeconds: null },
};
const moved = (change: Partial<EntitlementDefinition>) => ({
  entitlements: new Map([[READ, { ...entitlement, ...change }]]),
});

test.each<[string, TaskState, Partial<Catalog>]>([
  ['purpose_gone', state(), { purposes: new Map() }],
  ['entitlement_gone', state(), { entitlements: new Map() }],
  ['target_gone', state(), { targets: new Map() }],
  ['target_gone', state(), moved({ target: 'other-db' })],
  ['params_invalid', state(), moved({ params: { tenant: { type: 'string', pattern: 'a' } } })],
  ['task_suspended', state({ state: 'suspended' }), {}],
  ['task_suspended', state({}, [{ ...above, state: 'suspended' }]), {}],
  ['not_in_phase', state({}, [{ ...above, phase: 'execute' }]), {}],
  ['excessive_delegation', state({}, [{ ...above, max_depth: 0 }]), {}],
  ['not_in_task', state({}, [{ ...above, ceiling: { ...above.ceiling, entitlements: [] } }]), {}],
])('%s is named, and policy is not asked', (because, read, by) => {
  const says = policy();
  expect(retain(read, by, says)).toEqual({ kind: 'drifted', because, policy: null });
  expect(says.asked).toEqual([]);
});

test.each([
  ['its task has ended', state({ state: 'completed', endedAt: now, endedBy: 'completed' })],
  ['its task is past its deadline', state({ notAfter: now })],
  ['a task above it has', state({}, [{ ...above, not_after_millis: now.getTime() }])],
])('where %s it ends by that', (_, read) => {
  expect(retain(read)).toEqual({ kind: 'over' });
});
