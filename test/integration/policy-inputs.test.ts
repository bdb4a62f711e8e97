import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { AgentKey, type TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { aboutTask, ENTITIES, permitting, SCHEMA, TYPES } from '../support/authzen.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const INVOICES = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';
const ALL = '(principal is Mayfly::Task, action, resource is Mayfly::Entitlement)';

let house: House;
let replica: { url: string };
beforeAll(async () => {
  house = await startHouse({
    files: {
      'policies/test.cedar': `@id("all") permit ${ALL};`,
    },
  });
  replica = await house.startReplica();
});
afterAll(() => house?.stop());

/** What is permitted, but for these. */
const applyWith = async (policies: string, files: Record<string, string> = {}) =>
  await house.broker.apply({ ...house.files, ...files, 'policies/more.cedar': policies });
beforeEach(() => applyWith(''));

const open = async (): Promise<TaskBody> =>
  (await house.client().openTask(await house.sign({ entitlements: [INVOICES, PAYMENTS] }))).task;
const issue = async (task: { id: string }, entitlement: string, body: object = {}, url = house.url): Promise<Reply> =>
  await ask(url, 'POST', `/v1/tasks/${task.id}/grants`, {
    ...{ token: await house.token(), body: { entitlement, ...body } },
  });
const get = async (path: string) => await ask(house.url, 'GET', path, { token: await house.token() });
const denied = (reply: Reply) => [reply.status, reply.body['code'], reply.body['reasons']];
const forbid = (reason: string, when: string) =>
  `@id("no") @reason("${reason}") forbid (principal is Mayfly::Task, action == Mayfly::Action::"issue", resource is Mayfly::Entitlement) when { ${when} };`;

test('a task’s issuer is known by its name in the catalog', async () => {
  await applyWith(forbid('Not by a laptop.', 'principal.issuer == "dev-orchestrator"'));
  expect(denied(await issue(await open(), INVOICES))).toEqual([403, 'denied_by_policy', ['Not by a laptop.']]);
});

describe('what a tree has and had', () => {
  test('counts for all of its tasks', async () => {
    await applyWith(forbid('Enough.', 'context.tree.held.contains(resource) && context.own.grants == 0'));
    const [owner, other] = await Promise.all([Agent.make(house), Agent.make(house, 'agent-support')]);
    const parent = await owner.open({ entitlements: [INVOICES, PAYMENTS] });
    const child = await owner.beget(parent, other, { entitlements: [INVOICES, PAYMENTS] });
    await owner.client().issue(parent.id, { entitlement: INVOICES });
    const by = async (entitlement: string) => await other.call('POST', `/v1/tasks/${child.id}/grants`, { entitlement });
    expect(denied(await by(INVOICES))).toEqual([403, 'denied_by_policy', ['Enough.']]);
    expect((await by(PAYMENTS)).status).toBe(201);
  });

  test('is no more held when it is contained, and was touched all the same', async () => {
    const when = `context.tree.touched.contains(Mayfly::Target::"ledger-db") && !context.tree.held.contains(Mayfly::Entitlement::"${INVOICES}")`;
    await applyWith(forbid('It has been there.', when));
    const task = await open();
    const client = house.client();
    const { grant } = await client.issue(task.id, { entitlement: INVOICES });
    expect((await issue(task, PAYMENTS)).status).toBe(201);
    await client.release(grant.id, { wait: 30 });
    expect(denied(await issue(task, PAYMENTS))).toEqual([403, 'denied_by_policy', ['It has been there.']]);
  });

  test('tells the classes of the data that it holds', async () => {
    const entitlements = house.files['entitlements/ledger-db.yaml'] ?? '';
    const files = {
      'entitlements/ledger-db.yaml': entitlements.replace(
        'sensitivity: restricted',
        'data_classes: [payments]\n  sensitivity: restricted',
      ),
    };
    await applyWith(forbid('Not beside payments.', 'context.tree.data_classes.contains("payments")'), files);
    const task = await open();
    expect((await issue(task, INVOICES)).status).toBe(201);
    expect((await issue(task, PAYMENTS)).status).toBe(201);
    expect(denied(await issue(task, INVOICES))).toEqual([403, 'denied_by_policy', ['Not beside payments.']]);
  });

  test('is counted under the locks: of 64 asks at once on two replicas no two that exclude each other are permitted', async () => {
    const beside = (one: string, other: string) =>
      `@id("${one}") forbid (principal is Mayfly::Task, action == Mayfly::Action::"issue", resource == Mayfly::Entitlement::"ledger-db/${one}")
       when { context.tree.held.contains(Mayfly::Entitlement::"ledger-db/${other}") };`;
    await applyWith(`${beside('read-invoices', 'read-payments')}\n${beside('read-payments', 'read-invoices')}`);
    for (let round = 0; round < 3; round++) {
      const task = await open();
      const replies = await Promise.all(
        Array.from({ length: 64 }, (_, n) =>
          issue(task, n % 2 === 0 ? INVOICES : PAYMENTS, {}, n % 4 < 2 ? house.url : replica.url),
        ),
      );
      const got = replies.flatMap(({ status, body }) =>
        status === 201 ? [Object(body['grant'])['entitlement'] as string] : [],
      );
      expect(got).toHaveLength(32);
      expect(new Set(got).size).toBe(1);
      expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([201, 403]));
      await house.client().cancel(task.id, { wait: 30 });
    }
  });
});

describe('what was used is counted', () => {
  const counted = forbid('Three times.', 'context.tree.grants_of_this >= 3');

  test('after the third grant of one thing to a tree the fourth is denied, whoever of it asks', async () => {
    await applyWith(counted);
    const [owner, other] = await Promise.all([Agent.make(house), Agent.make(house, 'agent-support')]);
    const parent = await owner.open({ entitlements: [INVOICES, PAYMENTS] });
    const child = await owner.beget(parent, other, { entitlements: [INVOICES, PAYMENTS] });
    const by = async (agent: Agent, { id }: { id: string }, entitlement = INVOICES) =>
      await agent.call('POST', `/v1/tasks/${id}/grants`, { entitlement });
    for (const agent of [owner, other, owner]) {
      const given = await by(agent, agent === owner ? parent : child);
      expect(given.status).toBe(201);
      // What is given back was given.
      await agent.client().release(String(Object(given.body['grant'])['id']), { wait: 30 });
    }
    for (const [agent, task] of [
      [owner, parent],
      [other, child],
    ] as const)
      expect(denied(await by(agent, task))).toEqual([403, 'denied_by_policy', ['Three times.']]);
    expect((await by(other, child, PAYMENTS)).status).toBe(201);
    await applyWith(forbid('Twice.', 'context.own.grants_of_this >= 2'));
    expect((await by(other, child)).status).toBe(201);
    expect(denied(await by(owner, parent))).toEqual([403, 'denied_by_policy', ['Twice.']]);
  });

  test('under the locks: of 64 asks at once on two replicas three are permitted', async () => {
    await applyWith(counted);
    for (let round = 0; round < 2; round++) {
      const task = await open();
      const replies = await Promise.all(
        Array.from({ length: 64 }, (_, n) => issue(task, INVOICES, {}, n % 2 === 0 ? house.url : replica.url)),
      );
      expect(replies.filter(({ status }) => status === 201)).toHaveLength(3);
      expect(replies.filter(({ status }) => status === 403)).toHaveLength(61);
      await house.client().cancel(task.id, { wait: 30 });
    }
  });

  test('it is beside itself that a grant is renewed and retained', async () => {
    await applyWith(
      `@id("no") forbid (principal is Mayfly::Task, action, resource is Mayfly::Entitlement) when { context.own.grants_of_this >= 1 };`,
    );
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: INVOICES });
    expect((await house.client().renew(grant.id, 60)).grant.state).toBe('active');
    expect((await issue(task, INVOICES)).status).toBe(403);
  });

  test('evaluations of a task and its tree, asked and permitted, before the next call and the next grant', async () => {
    const [owner, other] = await Promise.all([Agent.make(house), Agent.make(house, 'agent-support')]);
    const types = { [SCHEMA]: TYPES, 'entities.yaml': ENTITIES };
    const after = (when: string) =>
      `${permitting('open', 'resource is document && resource has open && resource.open')}
       @id("calls") @reason("Two calls.") forbid (principal is Mayfly::Task, action in Mayfly::Action::"evaluate", resource)
       when { context has tree && context.tree.evaluations_permitted >= 2 };
       ${forbid('It was asked about.', when)}`;
    await applyWith(
      after('context.own.evaluations == 3 && context.own.evaluations_permitted == 1 && context.tree.evaluations == 5'),
      types,
    );
    const parent = await owner.open({ entitlements: [INVOICES] });
    const child = await owner.beget(parent, other, { entitlements: [INVOICES] });
    const calls = async (agent: Agent, { id }: { id: string }, document = '1') => {
      const { status, body } = await agent.call(
        'POST',
        '/access/v1/evaluation',
        aboutTask(id, { resource: { type: 'document', id: document } }),
      );
      return [status, body['decision'], Object(body['context'])['reasons']];
    };
    expect(await calls(owner, parent)).toEqual([200, true, undefined]);
    expect(await calls(owner, parent, '2')).toEqual([200, false, []]);
    expect(await calls(other, child)).toEqual([200, true, undefined]);
    const tired = [200, false, ['Two calls.']];
    expect(await calls(owner, parent)).toEqual(tired);
    expect((await owner.call('POST', `/v1/tasks/${parent.id}/grants`, { entitlement: INVOICES })).status).toBe(201);
    expect(await calls(other, child)).toEqual(tired);
    expect(denied(await owner.call('POST', `/v1/tasks/${parent.id}/grants`, { entitlement: INVOICES }))).toEqual([
      ...[403, 'denied_by_policy', ['It was asked about.']],
    ]);
    expect((await other.call('POST', `/v1/tasks/${child.id}/grants`, { entitlement: INVOICES })).status).toBe(201);
  });
});

describe('a permit may demand', () => {
  test('a task that names the agent’s key', async () => {
    await house.broker.apply({ ...house.files, 'policies/test.cedar': `@id("all") @require_dpop permit ${ALL};` });
    const [, code, reasons] = denied(await issue(await open(), INVOICES));
    expect([code, reasons]).toEqual(['denied_by_policy', [expect.stringContaining('@require_dpop')]]);
    const agent = await Agent.make(house);
    const task = await agent.open();
    expect((await agent.client().issue(task.id, { entitlement: INVOICES })).grant.state).toBe('active');
  });

  test('that the credential goes out sealed, at issue and at renewal', async () => {
    const sealed = `@id("all") @require_sealed_delivery permit ${ALL};`;
    await house.broker.apply({ ...house.files, 'policies/test.cedar': sealed });
    const key = await AgentKey.make();
    const client = house.client('agent-recon', house.url, key);
    const { task } = await client.openTask(await house.sign({ keyThumbprint: key.thumbprint }));
    const agent = new Agent(house, 'agent-recon', key);
    const bare = await agent.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: INVOICES });
    expect(outcome(bare)).toEqual([422, 'delivery_required']);
    const [decision] = await house.onStore('SELECT permitted FROM mayfly.decisions WHERE task_id = $1', [
      task.id.slice(5),
    ]);
    expect(decision).toEqual({ permitted: true });
    const { grant } = await client.issue(task.id, { entitlement: INVOICES, ttl_seconds: 60 });
    const renewal = await agent.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 90 });
    expect(outcome(renewal)).toEqual([422, 'delivery_required']);
    expect((await client.renew(grant.id, 90)).grant.state).toBe('active');
  });
});

describe('a permit for one call', () => {
  const perCall = `@id("all") @per_call permit ${ALL};`;

  test('makes a credential that lives a minute, holds one connection, and is never renewed', async () => {
    await house.broker.apply({ ...house.files, 'policies/test.cedar': perCall });
    const task = await open();
    const client = house.client();
    const { grant, credential, cut } = await client.issue(task.id, { entitlement: INVOICES, ttl_seconds: 300 });
    expect(cut).toMatchObject({ by: 'policy', granted_seconds: 60 });
    expect((await get(`/v1/grants/${grant.id}`)).body).toMatchObject({ per_call: true });
    const connect = async () => {
      const connection = new pg.Client({ connectionString: String(credential['url']) });
      connection.on('error', () => {});
      await connection.connect();
      return connection;
    };
    const first = await connect();
    await expect(connect()).rejects.toThrow('too many connections for role');
    await first.end();
    const renewal = await ask(house.url, 'POST', `/v1/grants/${grant.id}/renew`, {
      ...{ token: await house.token(), body: { ttl_seconds: 60 } },
    });
    expect(outcome(renewal)).toEqual([409, 'grant_per_call']);
    // The next call is the next decision.
    await applyWith(forbid('Not any more.', 'true'));
    expect(denied(await issue(task, INVOICES))).toEqual([403, 'denied_by_policy', ['Not any more.']]);
  });

  test('renews nothing that was permitted for longer before', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: INVOICES });
    await house.broker.apply({ ...house.files, 'policies/test.cedar': perCall });
    await expect(house.client().renew(grant.id, 60)).rejects.toMatchObject({ code: 'grant_per_call' });
  });
});
