import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import {
  aboutTask,
  ENTITIES,
  evaluateAs,
  permitting,
  type Question,
  said,
  SCHEMA,
  schemaOf,
  TYPES,
  vectorsThere,
} from '../support/authzen.ts';
import { Agent } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const PATH = '/access/v1/evaluation';
const OPEN = 'resource is document && resource has open && resource.open';

let house: House;
beforeAll(async () => {
  house = await startHouse();
});
afterAll(() => house?.stop());

const applyWith = async (policies: string, entities = ENTITIES) =>
  await house.broker.apply({
    ...house.files,
    [SCHEMA]: TYPES,
    'entities.yaml': entities,
    'policies/evaluating.cedar': policies,
  });
beforeEach(() => applyWith(permitting('open', OPEN)));

const open = async (options: Parameters<House['sign']>[0] = {}): Promise<TaskBody> =>
  (await house.client().openTask(await house.sign(options))).task;
const evaluate = async (body: unknown, headers: Record<string, string> = {}): Promise<Reply> =>
  await evaluateAs(house, 'agent-recon', body, headers);
const contextOf = ({ body }: Reply) => Object(body['context']) as Record<string, unknown>;
const DENIED = [200, false, 'denied_by_policy'];
const PERMITTED = [200, true, undefined];

describe('before every sensitive tool call it is asked again', () => {
  test('and policy decides by the catalog’s own types', async () => {
    const { id } = await open();
    const permitted = await evaluate(aboutTask(id));
    expect(permitted.body).toEqual({
      decision: true,
      context: {
        evaluation_id: expect.stringMatching(/^dec_[0-9a-f-]{36}$/),
        catalog_revision: expect.any(Number),
        valid_for_seconds: 10,
      },
    });
    expect(permitted.headers['cache-control']).toBe('no-store');
    const denied = await evaluate(aboutTask(id, { resource: { type: 'document', id: '2' } }));
    expect(said(denied)).toEqual(DENIED);
    expect(contextOf(denied)['valid_for_seconds']).toBe(0);
  });

  test('a refusal tells the reasons of the policies that forbid it', async () => {
    await applyWith(`${permitting('all', 'true')}
      @id("no") @reason("Not on a Sunday.") forbid (principal, action == Action::"can_edit", resource);`);
    const { id } = await open();
    expect(contextOf(await evaluate(aboutTask(id, { action: { name: 'can_edit' } })))).toMatchObject({
      code: 'denied_by_policy',
      reasons: ['Not on a Sunday.'],
    });
    expect(said(await evaluate(aboutTask(id)))).toEqual(PERMITTED);
  });

  test('each call is a use event in the task’s timeline, with its decision', async () => {
    const { id } = await open();
    const replies = [await evaluate(aboutTask(id)), await evaluate(aboutTask(id, { action: { name: 'nothing' } }))];
    const timeline = await ask(house.url, 'GET', `/v1/tasks/${id}/timeline`, { token: await house.token() });
    const events = (timeline.body['items'] ?? timeline.body['events']) as Record<string, unknown>[];
    const uses = events.filter(({ type }) => type === 'use.evaluated');
    expect(uses.map(({ decision_id: decision }) => decision)).toEqual(
      replies.map((reply) => contextOf(reply)['evaluation_id']),
    );
    expect(uses).toMatchObject([
      { action: 'read', resource: 'document::"1"', decision: 'permit', payload: { policies: ['open'] } },
      { action: 'nothing', decision: 'deny', payload: { refusal: 'not_evaluable' } },
    ]);
    const decisions = await house.onStore(
      `SELECT action, resource, permitted FROM mayfly.decisions WHERE task_id = $1 ORDER BY id`,
      [id.slice(5)],
    );
    expect(decisions).toEqual([
      { action: 'evaluate', resource: 'document::"1"', permitted: true },
      { action: 'evaluate', resource: 'document::"1"', permitted: false },
    ]);
  });

  test('a permit is valid no longer than @max_ttl says', async () => {
    await applyWith(`@id("short") @max_ttl("3s") permit (principal, action, resource is document);`);
    expect(contextOf(await evaluate(aboutTask((await open()).id)))['valid_for_seconds']).toBe(3);
  });
});

describe('a task is judged by what the broker knows of it', () => {
  test('an ended one is denied', async () => {
    const { id } = await open();
    await house.client().complete(id, { wait: 30 });
    const reply = await evaluate(aboutTask(id));
    expect(said(reply)).toEqual([200, false, 'task_ended']);
    expect(contextOf(reply)['evaluation_id']).toBeDefined();
  });

  test('one that its issuer may not state any more is denied', async () => {
    const { id } = await open();
    const trust = house.files['trust.yaml'] ?? '';
    await house.broker.apply({ ...house.files, 'trust.yaml': trust.replace('[reconcile.invoices, ', '[') });
    expect(said(await evaluate(aboutTask(id)))).toEqual([200, false, 'issuer_may_not_state']);
  });

  test('one that is killed is denied, and so is its workload', async () => {
    const stated = await house.sign({ workload: 'agent-support', purpose: 'answer.customer' });
    const { id } = (await house.client('agent-support').openTask(stated)).task;
    const { token } = await house.issuer.signOperatorToken({
      ...{ subject: 'root', roles: ['operator' as const], audience: house.url, ttl_seconds: 300 },
    });
    const body = { scope: 'agent', id: 'dev:agent-support', reason: 'the tests' };
    const raised = await ask(house.url, 'POST', '/v1/kill', { token, body });
    expect(raised.status).toBe(201);
    const asked = async (subject: object) => said(await evaluateAs(house, 'agent-support', aboutTask(id, { subject })));
    expect(await asked({ type: 'task', id })).toEqual([200, false, 'killed']);
    expect(await asked({ type: 'workload', id: 'dev:agent-support' })).toEqual([200, false, 'killed']);
    await ask(house.url, 'DELETE', `/v1/kill/${String(raised.body['id'])}`, { token });
    expect(await asked({ type: 'task', id })).toEqual([200, false, 'task_ended']);
    expect(await asked({ type: 'workload', id: 'dev:agent-support' })).toEqual(PERMITTED);
  });

  test('one whose parent has ended is denied', async () => {
    const [owner, other] = await Promise.all([Agent.make(house), Agent.make(house, 'agent-support')]);
    const parent = await owner.open();
    const child = await owner.beget(parent, other);
    expect(said(await other.call('POST', PATH, aboutTask(child.id)))).toEqual(PERMITTED);
    await owner.client().cancel(parent.id, { wait: 30 });
    expect(said(await other.call('POST', PATH, aboutTask(child.id)))).toEqual([200, false, 'task_ended']);
  });

  test('one that is offered, suspended or below such a one is denied', async () => {
    const [owner, other] = await Promise.all([Agent.make(house), Agent.make(house, 'agent-support')]);
    const parent = await owner.open();
    const child = await owner.delegate(parent, other);
    expect(said(await other.call('POST', PATH, aboutTask(child.id)))).toEqual([200, false, 'task_offered']);
    await other.client().claim(child.id);
    expect(said(await other.call('POST', PATH, aboutTask(child.id)))).toEqual(PERMITTED);
    await house.onStore(`UPDATE mayfly.tasks SET state = 'suspended' WHERE id = $1`, [parent.id.slice(5)]);
    expect(said(await owner.call('POST', PATH, aboutTask(parent.id)))).toEqual([200, false, 'task_suspended']);
    expect(said(await other.call('POST', PATH, aboutTask(child.id)))).toEqual([200, false, 'task_suspended']);
  });

  test('what the caller says of it, or in its context, overrides nothing', async () => {
    await applyWith(permitting('support', 'principal is Mayfly::Task && principal.purpose == "answer.customer"'));
    const { id } = await open({ purpose: 'reconcile.invoices' });
    const lie = { purpose: 'answer.customer', workload: { type: 'Mayfly::Workload', id: 'dev:root' } };
    const lies: Question = {
      subject: { type: 'task', id, properties: lie },
      context: { ...lie, principal: lie, now: '2001-01-01T00:00:00Z', tree: { live_grants: 0 } },
    };
    expect(said(await evaluate(aboutTask(id, lies)))).toEqual(DENIED);
    const heard = 'context has caller && context.caller has purpose && context.caller.purpose == "answer.customer"';
    await applyWith(permitting('late', `context.now > datetime("2020-01-01") && ${heard}`));
    expect(said(await evaluate(aboutTask(id, lies)))).toEqual(PERMITTED);
  });

  test('what is stored of a resource wins over what is said of it', async () => {
    const { id } = await open();
    const shut = { type: 'document', id: '2', properties: { open: true } };
    expect(said(await evaluate(aboutTask(id, { resource: shut })))).toEqual(DENIED);
    const unknown = { type: 'document', id: 'new', properties: { open: true, more: { than: 'declared' } } };
    expect(said(await evaluate(aboutTask(id, { resource: unknown })))).toEqual(PERMITTED);
  });

  test('its tree and its history are known', async () => {
    await applyWith(permitting('first', 'context has tree && context.tree.live_grants == 0'));
    const { id } = await open();
    expect(said(await evaluate(aboutTask(id)))).toEqual(PERMITTED);
    await house.client().issue(id, { entitlement: 'ledger-db/read-invoices' });
    expect(said(await evaluate(aboutTask(id)))).toEqual(DENIED);
  });
});

describe('an agent asks only about itself', () => {
  test('another’s task is as unknown as one that is not there, and leaves no trace in its timeline', async () => {
    const { id } = await open();
    const nobody = '018f0000-0000-7000-8000-000000000000';
    const replies = await Promise.all(
      [
        { type: 'task', id },
        { type: 'task', id: `task_${nobody}` },
        { type: 'task', id: 'x' },
        { type: 'workload', id: 'dev:agent-recon' },
        { type: 'user', id: 'alice@example.com' },
      ].map((subject) => evaluateAs(house, 'agent-support', aboutTask(id, { subject }))),
    );
    expect(replies.map(({ body }) => body)).toEqual(replies.map(() => replies[1]?.body));
    expect(replies.map(said)).toEqual(replies.map(() => [200, false, 'not_found']));
    const uses = await house.onStore(`SELECT FROM mayfly.audit_events WHERE task_id = $1 AND type = 'use.evaluated'`, [
      id.slice(5),
    ]);
    expect(uses).toEqual([]);
  });

  test('nobody asks without a token, and no operator', async () => {
    const body = aboutTask((await open()).id);
    expect((await ask(house.url, 'POST', PATH, { body })).status).toBe(401);
    const { token } = await house.issuer.signOperatorToken({
      ...{ subject: 'root', roles: ['admin' as const], audience: house.url, ttl_seconds: 300 },
    });
    expect((await ask(house.url, 'POST', PATH, { body, token })).status).toBe(401);
  });

  test('a task that names a key is known to that key alone', async () => {
    const agent = await Agent.make(house);
    const task = await agent.open();
    expect(said(await evaluate(aboutTask(task.id)))).toEqual([200, false, 'not_found']);
    expect(said(await agent.call('POST', PATH, aboutTask(task.id)))).toEqual(PERMITTED);
  });
});

describe('what is no evaluation', () => {
  test('unknown members are ignored everywhere', async () => {
    const { id } = await open();
    const body = {
      ...{ subject: { type: 'task', id, extra: 1 }, action: { name: 'read', extra: {} } },
      ...{ resource: { type: 'document', id: '1', extra: [] }, options: { any: 'thing' }, more: null },
    };
    expect(said(await evaluate(body))).toEqual(PERMITTED);
  });

  test.each([
    ['no resource', { resource: undefined }],
    ['a subject without a type', { subject: { id: 'x' } }],
    ['an action that is text', { action: 'read' }],
    ['a number for an id', { resource: { type: 'document', id: 1 } }],
    ['properties that are a list', { resource: { type: 'document', id: '1', properties: [] } }],
    ['a context that is text', { context: 'x' }],
    ['an id without end', { resource: { type: 'document', id: 'x'.repeat(1001) } }],
  ])('%s is 400', async (_what, more) => {
    const reply = await evaluate(aboutTask((await open()).id, more));
    expect([reply.status, reply.body['code']]).toEqual([400, 'invalid_request']);
  });

  test('members given twice, no JSON, too much and too deep are refused as everywhere', async () => {
    const outcomes = [];
    for (const body of [
      '{"subject":{"type":"task","type":"user","id":"x"},"action":{"name":"read"},"resource":{"type":"document","id":"1"}}',
      '{',
      JSON.stringify({ context: { long: 'x'.repeat(70_000) } }),
      `{"context":${'{"a":'.repeat(40)}1${'}'.repeat(40)}}`,
    ]) {
      const reply = await evaluate(body);
      outcomes.push([reply.status, reply.body['code']]);
    }
    expect(outcomes).toEqual([
      [400, 'duplicate_member'],
      [400, 'malformed_json'],
      [413, 'body_too_large'],
      [400, 'malformed_json'],
    ]);
  });

  test.each([
    ['an unknown action', { action: { name: 'fly' } }],
    ['the broker’s own action', { action: { name: 'issue' } }],
    ['an unknown type', { resource: { type: 'spaceship', id: '1' } }],
    ['a type of the broker’s', { resource: { type: 'Mayfly::Entitlement', id: 'ledger-db/read-invoices' } }],
    ['a task for a resource', { resource: { type: 'task', id: 'x' } }],
    ['a property of another kind', { resource: { type: 'document', id: 'new', properties: { open: 'yes' } } }],
    ['a context of another kind', { context: { time: 12 } }],
    ['an owner who is not known', { resource: { type: 'document', id: 'n', properties: { owner: 'alice' } } }],
    ['a property of the action of another kind', { action: { name: 'read', properties: { method: [] } } }],
  ])('%s is answered with a denial', async (_what, more) => {
    await applyWith(permitting('all', 'true'));
    const reply = await evaluate(aboutTask((await open()).id, more));
    expect(said(reply)).toEqual([200, false, 'not_evaluable']);
    expect(contextOf(reply)['reasons']).toHaveLength(1);
  });
});

test('X-Request-ID is echoed as it came', async () => {
  const body = aboutTask((await open()).id);
  for (const id of ['bfe9eb29-ab87-4ca3-be83-a1d5d8305716', 'gateway:1/7=?', 'x'.repeat(100)]) {
    expect((await evaluate(body, { 'x-request-id': id })).headers['x-request-id']).toBe(id);
  }
  const elsewhere = await ask(house.url, 'GET', '/healthz', { headers: { 'x-request-id': 'gateway:1/7=?' } });
  expect(elsewhere.headers['x-request-id']).not.toBe('gateway:1/7=?');
});

test.skipIf(!vectorsThere)('what is asked and answered fits the specification’s schemas', async () => {
  const body = aboutTask((await open()).id, { context: { time: '1985-10-26T01:22-07:00' } });
  schemaOf('request').parse(body);
  schemaOf('response').parse((await evaluate(body)).body);
  expect(schemaOf('response').safeParse({ decision: 'yes' }).success).toBe(false);
});
