import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ask, type Reply } from '../support/ask.ts';
import { Agent } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const ENTITLEMENT = 'ledger-db/read-invoices';
let house: House;
let token: string;

beforeAll(async () => {
  house = await startHouse({
    env: { MAYFLY_MINTS_PER_TASK: '3', MAYFLY_TASKS_PER_ISSUER: '8', MAYFLY_EVALUATIONS_PER_TASK: '5' },
  });
  token = await house.token();
});
afterAll(async () => {
  await house?.stop();
});

const post = async (path: string, body?: unknown, url = house.url): Promise<Reply> =>
  await ask(url, 'POST', path, { token, ...(body === undefined ? {} : { body }) });
const open = async (request: string, url?: string) => await post('/v1/tasks', { request }, url);
const idOf = ({ body }: Reply) => String(Object(body['task'])['id']);
const statuses = (replies: readonly Reply[]) => replies.map(({ status }) => status).sort((a, b) => a - b);

describe('the credentials of one task', () => {
  test('are so many in its life, however they are asked for, and what is given back does not count again', async () => {
    const task = idOf(await open(await house.sign({ ttl: 600 })));
    const asked = await Promise.all(
      Array.from({ length: 10 }, () => post(`/v1/tasks/${task}/grants`, { entitlement: ENTITLEMENT })),
    );
    expect(statuses(asked)).toEqual([201, 201, 201, ...Array<number>(7).fill(429)]);
    const made = await house.onStore<{ id: string }>('SELECT id FROM mayfly.grants WHERE task_id = $1', [
      task.slice(5),
    ]);
    expect(made).toHaveLength(3);
    const refused = asked.find(({ status }) => status === 429);
    expect(refused?.body['code']).toBe('too_many_mints');
    const seconds = Number(refused?.headers['retry-after']);
    expect(seconds > 500 && seconds <= 600).toBe(true);

    const grant = `/v1/grants/grt_${made[0]?.id}`;
    expect((await post(`${grant}/renew`, { ttl_seconds: 60 })).status).toBe(200);
    expect((await ask(house.url, 'DELETE', `${grant}?wait=30`, { token })).status).toBe(200);
    const again = await post(`/v1/tasks/${task}/grants`, { entitlement: ENTITLEMENT });
    expect([again.status, again.body['code']]).toEqual([429, 'too_many_mints']);
    expect((await post(`/v1/tasks/${task}/complete`)).status).toBe(202);
  });

  test('count when they are asked for with the task too', async () => {
    const request = await house.sign({ entitlements: [ENTITLEMENT] });
    const opened = await post('/v1/tasks', { request, issue: [ENTITLEMENT] });
    for (let mint = 0; mint < 2; mint++)
      expect((await post(`/v1/tasks/${idOf(opened)}/grants`, { entitlement: ENTITLEMENT })).status).toBe(201);
    expect((await post(`/v1/tasks/${idOf(opened)}/grants`, { entitlement: ENTITLEMENT })).status).toBe(429);
    expect((await post(`/v1/tasks/${idOf(opened)}/complete`)).status).toBe(202);
  });
});

test('a task is asked about so often in its life, by all replicas together; then it is denied, and nothing more is recorded', async () => {
  const second = await house.startReplica({ MAYFLY_EVALUATIONS_PER_TASK: '5' });
  const [task, other] = [idOf(await open(await house.sign())), idOf(await open(await house.sign()))];
  const asking = (id: string) => ({
    ...{ subject: { type: 'task', id }, action: { name: 'read' }, resource: { type: 'document', id: '1' } },
  });
  const contextOf = ({ body }: Reply) => Object(body['context']);
  const asked = await Promise.all(Array.from({ length: 5 }, () => post('/access/v1/evaluation', asking(task))));
  for (const reply of asked) expect([reply.status, contextOf(reply).evaluation_id]).toEqual([200, expect.any(String)]);
  for (const url of [house.url, second.url]) {
    const spent = await post('/access/v1/evaluation', asking(task), url);
    expect([spent.status, spent.body['decision'], contextOf(spent).code]).toEqual([200, false, 'evaluations_spent']);
    expect(contextOf(spent)).not.toHaveProperty('evaluation_id');
  }
  const both = { ...asking(task), evaluations: [{}, { subject: { type: 'task', id: other } }] };
  const batch = await post('/access/v1/evaluations', both);
  expect((batch.body['evaluations'] as { context: { code: string } }[]).map(({ context }) => context.code)).toEqual([
    'evaluations_spent',
    'not_evaluable',
  ]);
  const recorded = await house.onStore<{ decisions: number; events: number }>(
    `SELECT (SELECT count(*)::int FROM mayfly.decisions WHERE task_id = $1 AND action = 'evaluate') AS decisions,
       (SELECT count(*)::int FROM mayfly.audit_events WHERE task_id = $1 AND type = 'use.evaluated') AS events`,
    [task.slice(5)],
  );
  expect(recorded).toEqual([{ decisions: 5, events: 5 }]);
  for (const id of [task, other]) expect((await post(`/v1/tasks/${id}/complete`)).status).toBe(202);
});

describe('the tasks of one issuer that are alive', () => {
  test('are so many with those that are delegated; a delegation that made its child before is answered', async () => {
    const [owner, other] = [await Agent.make(house), await Agent.make(house, 'agent-support')];
    const parent = await owner.open();
    const delegations = await Promise.all(Array.from({ length: 9 }, () => owner.offerOf(parent, other)));
    const offer = async () => {
      const replies = [];
      for (const delegation of delegations)
        replies.push(await owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation }));
      return replies;
    };
    const offered = await offer();
    expect(statuses(offered)).toEqual([...Array<number>(7).fill(201), 429, 429]);
    const refused = offered.find(({ status }) => status === 429);
    expect([refused?.body['code'], refused?.headers['retry-after']]).toEqual(['too_many_tasks', '10']);
    expect(statuses(await offer())).toEqual([...Array<number>(7).fill(200), 429, 429]);
    expect((await owner.call('POST', `/v1/tasks/${parent.id}/complete`)).status).toBe(202);
  });

  test('are so many over all replicas; a request that opened its task before is answered, and an end makes room', async () => {
    const second = await house.startReplica({ MAYFLY_MINTS_PER_TASK: '3', MAYFLY_TASKS_PER_ISSUER: '8' });
    const requests = await Promise.all(Array.from({ length: 8 }, () => house.sign()));
    const opened = [];
    for (const request of requests) opened.push(await open(request));
    expect(statuses(opened)).toEqual(Array<number>(8).fill(201));
    const refused = await open(await house.sign());
    expect([refused.status, refused.body['code'], refused.headers['retry-after']]).toEqual([
      429,
      'too_many_tasks',
      '10',
    ]);
    // The other replica has counted nothing yet.
    expect((await open(await house.sign(), second.url)).status).toBe(429);
    expect((await open(requests[0] ?? '')).status).toBe(200);

    const [first] = opened;
    if (first === undefined) throw new Error('nothing was opened');
    expect((await post(`/v1/tasks/${idOf(first)}/complete`)).status).toBe(202);
    const late = await house.sign();
    await vi.waitFor(async () => expect((await open(late)).status).toBe(201));
    for (const task of opened.slice(1)) await post(`/v1/tasks/${idOf(task)}/complete`);
  });
});

test('a task that has much evidence is read as often as a replica can bear, and one that has little goes on', async () => {
  const replica = await house.startReplica({ MAYFLY_CALLS_PER_CALLER: '100', MAYFLY_TASKS_PER_ISSUER: '100' });
  const other = await house.token('agent-support');
  const task = idOf(await open(await house.sign(), replica.url));
  await house.onStore(
    `INSERT INTO mayfly.audit_events SELECT (jsonb_populate_record(e, jsonb_build_object('id', gen_random_uuid()))).*
      FROM mayfly.audit_events e, generate_series(1, 10000) WHERE task_id = $1 AND type = 'task.opened'`,
    [task.slice(5)],
  );
  const read = async () => (await ask(replica.url, 'GET', `/v1/tasks/${task}/timeline`, { token })).status;
  const replies = [];
  for (let time = 0; time < 10; time++) replies.push(await read());
  expect(replies).toEqual([...Array<number>(9).fill(200), 429]);
  expect((await ask(replica.url, 'GET', '/v1/whoami', { token: other })).status).toBe(200);
  expect((await post(`/v1/tasks/${task}/complete`, undefined, replica.url)).status).toBe(202);
});

test('a flood of calls by one caller is stopped, and it may still end what it has', async () => {
  const replica = await house.startReplica({ MAYFLY_CALLS_PER_CALLER: '50', MAYFLY_TASKS_PER_ISSUER: '100' });
  const task = idOf(await open(await house.sign(), replica.url));
  const read = async () => await ask(replica.url, 'GET', `/v1/tasks/${task}`, { token });
  const replies = await Promise.all(Array.from({ length: 60 }, read));
  expect(statuses(replies)).toEqual([...Array<number>(49).fill(200), ...Array<number>(11).fill(429)]);
  const { text } = await ask(replica.url, 'GET', '/metrics');
  expect(text).toContain('code="too_many_calls"');
  expect((await post(`/v1/tasks/${task}/complete`, undefined, replica.url)).status).toBe(202);
});
