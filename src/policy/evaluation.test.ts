import { afterEach, describe, expect, test } from 'vitest';
import type { StoredEntity } from '../catalog/types.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from './engine.ts';
import { entityKey, fit, Misfit } from './fit.ts';
import type { Shape } from './shapes.ts';
import { policySet, sampleRequest } from './testing/sample.ts';
import type { EvaluationRequest } from './types.ts';

const schema = `
entity group;
entity Colour enum ["red", "green"];
entity user in [group] = { department: String, boss?: user } tags String;
namespace Shop { entity Item = { price?: Long }; }
entity document in [group] = { open?: Bool, owner?: user, colour?: Colour, made?: datetime, from?: ipaddr, size?: { width: Long } };
action read in [Mayfly::Action::"evaluate"] appliesTo {
  principal: [Mayfly::Task, Mayfly::Workload, user], resource: [document, Shop::Item],
  context: { now: datetime, tree?: Mayfly::Tree, own?: Mayfly::Own, proof_of_possession?: Bool, caller?: { time?: String }, action_properties?: { how?: String } }
};
action keep appliesTo { principal: [Mayfly::Task, user], resource: document, context: { tree: Mayfly::Tree } };
action write appliesTo { principal: user, resource: group };
`;
const stored = (type: string, id: string, more: Partial<StoredEntity> = {}): StoredEntity => ({
  ...{ type, id, attrs: {}, parents: [], tags: {} },
  ...more,
});
const entities = [
  stored('user', 'alice', {
    ...{ attrs: { department: 'Sales', boss: { type: 'user', id: 'bob' } }, parents: [{ type: 'group', id: 'staff' }] },
    tags: { floor: '3' },
  }),
  stored('user', 'bob', { attrs: { department: 'Board' } }),
  stored('group', 'staff'),
  stored('document', 'shut', { attrs: { open: false, owner: { type: 'user', id: 'alice' } } }),
];

const opened: OwnedPolicyEngine[] = [];
afterEach(() => {
  for (const engine of opened.splice(0)) engine.close();
});
function engineFor(text: string): OwnedPolicyEngine {
  const engine = createPolicyEngine(policySet(text, schema, entities), 'sha256:one');
  opened.push(engine);
  return engine;
}

const { task, history, now, signals } = sampleRequest;
const byTask = { kind: 'task', task, history } as const;
const alice = { kind: 'other', asked: { type: 'user', id: 'alice', properties: {} } } as const;
const asked = (more: Partial<EvaluationRequest> = {}): EvaluationRequest => ({
  ...{ now, signals, subject: byTask, action: { name: 'read', properties: {} }, said: {} },
  resource: { type: 'document', id: 'new', properties: {} },
  ...more,
});
const document = (properties: Record<string, unknown>, id = 'new') => ({
  resource: { type: 'document', id, properties },
});
const when = (condition: string) =>
  engineFor(`@id("when") permit (principal, action, resource) when { ${condition} };`);
const outcomeOf = (engine: OwnedPolicyEngine, more: Partial<EvaluationRequest> = {}) => {
  const { permitted, errors, unfit } = engine.evaluate(asked(more));
  return { permitted, errors, unfit };
};
const PERMITTED = { permitted: true, errors: [], unfit: null };
const DENIED = { permitted: false, errors: [], unfit: null };

describe('a policy knows', () => {
  test.each<[string, string, Partial<EvaluationRequest>]>([
    ['the task', 'principal is Mayfly::Task && principal.purpose == "reconcile.invoices"', {}],
    ['its workload', 'principal in Mayfly::Workload::"dev:agent-recon"', {}],
    [
      'its params',
      'principal is Mayfly::Task && principal.hasTag("tenant") && principal.getTag("tenant") == "acme"',
      {},
    ],
    ['its tree', 'context has tree && context.tree.live_grants == 2 && context has own && context.own.grants == 2', {}],
    ['the time', 'context has now && context.now == datetime("2026-01-05T10:00:00Z")', {}],
    ['that a key was proven', 'context has proof_of_possession && context.proof_of_possession', {}],
    [
      'what the caller says',
      'context has caller && context.caller has time && context.caller.time == "x"',
      { said: { time: 'x' } },
    ],
    [
      'how',
      'context has action_properties && context.action_properties has how && context.action_properties.how == "x"',
      { action: { name: 'read', properties: { how: 'x' } } },
    ],
    [
      'what is stored of a user',
      'principal is user && principal.department == "Sales" && principal.hasTag("floor") && principal.getTag("floor") == "3"',
      { subject: alice },
    ],
    [
      'whoever is behind',
      'principal is user && principal has boss && principal.boss.department == "Board"',
      { subject: alice },
    ],
    ['what the subject is in', 'principal in group::"staff"', { subject: alice }],
    ['whoever a policy names', 'user::"bob".department == "Board"', {}],
    [
      'what is said of a thing',
      'resource is document && resource has size && resource.size.width == 3',
      document({ size: { width: 3, more: 1 } }),
    ],
    [
      'a colour',
      'resource is document && resource has colour && resource.colour == Colour::"red"',
      document({ colour: { type: 'Colour', id: 'red' } }),
    ],
    [
      'a time',
      'resource is document && resource has made && context has now && resource.made < context.now',
      document({ made: '2024-02-29T10:00:00Z' }),
    ],
    [
      'an address',
      'resource is document && resource has from && resource.from.isInRange(ip("10.0.0.0/8"))',
      document({ from: '10.1.2.3' }),
    ],
    [
      'types of other namespaces',
      'resource is Shop::Item && resource has price && resource.price == 3',
      { resource: { type: 'Shop::Item', id: 'x', properties: { price: 3 } } },
    ],
  ])('%s', (_what, condition, more) => {
    expect(outcomeOf(when(condition), more)).toEqual(PERMITTED);
  });

  test('a thing as it is stored, whatever is said of it', () => {
    const engine = when('resource is document && resource has open && resource.open');
    expect(outcomeOf(engine, document({ open: true }))).toEqual(PERMITTED);
    expect(outcomeOf(engine, document({ open: true }, 'shut'))).toEqual(DENIED);
  });

  test('nothing of a task for whom there is none', () => {
    expect(outcomeOf(when('context has tree'), { subject: alice })).toEqual(DENIED);
    expect(outcomeOf(when('true'), { subject: alice, action: { name: 'keep', properties: {} } }).unfit).toMatch(
      /needs/,
    );
  });
});

describe('what does not fit is denied, and no fault of a policy', () => {
  test.each<[string, Partial<EvaluationRequest>, string]>([
    ['an unknown action', { action: { name: 'fly', properties: {} } }, 'action is not known to the catalog'],
    ['an action for others', { action: { name: 'write', properties: {} } }, 'action is not for such a subject'],
    [
      'an unknown type',
      { resource: { type: 'ship', id: 'x', properties: {} } },
      'resource is of a type that the catalog does not have',
    ],
    [
      'a type of the broker',
      { resource: { type: 'Mayfly::Task', id: 'x', properties: {} } },
      'resource is of a type that the catalog does not have',
    ],
    [
      'a user of whom too little is known',
      { subject: { kind: 'other', asked: { type: 'user', id: 'eve', properties: {} } } },
      'subject.properties.department is required',
    ],
    [
      'a name of nobody',
      document({ owner: { type: 'user', id: 'eve' } }),
      'names a user that is not known to the catalog',
    ],
    [
      'another type',
      document({ owner: { type: 'group', id: 'staff' } }),
      'resource.properties.owner must be {"type": "user", "id": …}',
    ],
    [
      'a colour that there is not',
      document({ colour: { type: 'Colour', id: 'blue' } }),
      'names a Colour that is not known to the catalog',
    ],
    ['text for truth', document({ open: 'true' }), 'resource.properties.open must be true or false'],
    [
      'a fraction',
      { resource: { type: 'Shop::Item', id: 'x', properties: { price: 1.5 } } },
      'resource.properties.price must be a whole number',
    ],
    ['half a record', document({ size: {} }), 'resource.properties.size.width is required'],
    ['what the caller says', { said: { time: 3 } }, 'context.time must be text'],
  ])('%s', (_what, more, unfit) => {
    expect(outcomeOf(when('true'), more)).toEqual({ permitted: false, errors: [], unfit });
  });

  test.each(['2024-02-31', '2024-13-01', 'yesterday', '2024-05-31T15:22-07:00', ''])('the time %j', (made) => {
    expect(outcomeOf(when('true'), document({ made })).unfit).toMatch(/made must be text/);
  });

  test.each(['10.0.0.256', '::ffff:10.0.0.1', 'fe80::1%eth0', '10.0.0.0/33', '10.0.0.0/08', 'host'])(
    'the address %j',
    (from) => {
      expect(outcomeOf(when('true'), document({ from })).unfit).toMatch(/from must be text/);
    },
  );

  test.each<[Shape, readonly string[], readonly string[]]>([
    [{ kind: 'extension', fn: 'duration' }, ['1d2h3m4s5ms', '-5m', '7ms'], ['', '-', '5', '1m1h']],
    [{ kind: 'extension', fn: 'decimal' }, ['1.5', '-0.0001'], ['1', '1.', '1.00001']],
  ])('%j', (shape, good, bad) => {
    for (const text of good) expect(fit(shape, text, [])).toMatchObject({ __extn: { arg: text } });
    for (const text of bad) expect(() => fit(shape, text, [])).toThrow(Misfit);
  });
});

test('no two things have one name', () => {
  expect(entityKey({ type: 'Shop', id: 'Item::x' })).not.toBe(entityKey({ type: 'Shop::Item', id: 'x' }));
});

test('@require_dpop holds where the action tells of the proof', () => {
  const engine = engineFor('@id("a") @require_dpop permit (principal, action, resource);');
  expect(outcomeOf(engine)).toEqual(PERMITTED);
  const bare = { kind: 'task', task: { ...task, proofOfPossession: false }, history } as const;
  expect(outcomeOf(engine, { subject: bare })).toEqual(DENIED);
  // It tells of none.
  expect(outcomeOf(engine, { action: { name: 'keep', properties: {} } })).toEqual(DENIED);
});

test('@single_use is for single calls: it is told of an evaluation, and gives no grant', () => {
  const engine = engineFor(
    '@id("a") @single_use permit (principal, action, resource);\n@id("b") permit (principal, action, resource);',
  );
  expect(engine.evaluate(asked())).toMatchObject({ permitted: true, singleUse: true, policies: ['a', 'b'] });
  expect(engine.decide(sampleRequest)).toMatchObject({
    ...{ permitted: false, policies: ['a'], reasons: [expect.stringContaining('@single_use')] },
  });
  expect(when('true').evaluate(asked()).singleUse).toBe(false);
});

test('@require_approval is for grants: nothing can approve an evaluation', () => {
  const engine = engineFor(
    '@id("a") @require_approval("finance") permit (principal, action, resource);\n@id("b") permit (principal, action, resource);',
  );
  expect(engine.evaluate(asked())).toMatchObject({
    ...{ permitted: false, policies: ['a'], reasons: [expect.stringContaining('@require_approval')] },
  });
  expect(engine.decide(sampleRequest)).toMatchObject({ permitted: true, approvalGroups: ['finance'] });
});

test.each<[string, Partial<EvaluationRequest>]>([
  ['by a user', { subject: alice }],
  ['by a task', {}],
  // Its action declares no other fact.
  ['with its tree alone', { action: { name: 'keep', properties: {} } }],
])('an evaluation %s is decided again from its inputs, and the same', (_what, more) => {
  const engine = when('principal is Mayfly::Task || principal in group::"staff"');
  const { unfit: _, singleUse: __, ...first } = engine.evaluate(asked(more));
  expect(first).toMatchObject({ permitted: true, errors: [] });
  expect(engine.replay(JSON.parse(JSON.stringify(first.inputs)))).toEqual(first);
});

test('one of before uses were counted is decided again all the same', () => {
  const engine = when('principal is Mayfly::Task');
  const { inputs } = engine.evaluate(asked({ action: { name: 'keep', properties: {} } }));
  const recorded = JSON.stringify(inputs);
  const before = recorded.replaceAll(/"(grants_of_this|evaluations|evaluations_permitted)":\d+,?/g, '');
  expect(before).not.toBe(recorded);
  expect(engine.replay(JSON.parse(before))).toMatchObject({ permitted: true, errors: [] });
});

test('what is asked of a policy set that is closed is denied', () => {
  const engine = when('true');
  engine.close();
  expect(engine.evaluate(asked())).toMatchObject({ permitted: false, errors: ['this policy set is closed'] });
});
