import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Delegation, TaskBody, TaskStanding } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { Agent, delegationByIssuer, eventOf, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const READ = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';

let house: House;
let owner: Agent;
let other: Agent;
let parent: TaskBody;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', env: { MAYFLY_SWEEP_SECONDS: '1' } });
  owner = await Agent.make(house);
  other = await Agent.make(house, 'agent-support');
});
afterAll(() => house?.stop());
beforeEach(async () => {
  parent = await owner.open({ params: { tenant: 'acme' }, maxTtl: 120, entitlements: [READ, PAYMENTS] });
});

const children = (task: TaskStanding) => `/v1/tasks/${task.id}/children`;
const offer = async (more: Partial<Delegation> = {}): Promise<Reply> =>
  await owner.call('POST', children(parent), { delegation: await owner.offerOf(parent, other, more) });
const issue = (agent: Agent, task: TaskStanding, entitlement = READ) =>
  agent.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement });
/** As somebody who may write into the store. */
const set = (task: TaskStanding, what: string) =>
  house.onStore(`UPDATE mayfly.tasks SET ${what} WHERE id = $1`, [task.id.slice(5)]);
const childrenOf = (task: TaskStanding) =>
  house.onStore<{ state: string }>('SELECT state FROM mayfly.tasks WHERE parent_id = $1', [task.id.slice(5)]);

describe('a delegated task', () => {
  test('is offered, claimed, issues, and ends with its parent, which sees what it is and not what it holds', async () => {
    const offered = await owner.delegate(parent, other);
    const child = { parent_id: parent.id, workload: 'dev:agent-support', purpose: parent.purpose, phase: 'execute' };
    expect(offered).toMatchObject({ ...child, state: 'offered', subject: parent.subject, not_after: parent.not_after });
    expect((await other.client().task(offered.id)).state).toBe('offered');
    const { task } = await other.client().claim(offered.id);
    expect(task).toMatchObject({ ...child, id: offered.id, state: 'active', grants: [], children: [] });
    const { grant } = await other.client().issue(task.id, { entitlement: READ });
    const seen = await owner.client().task(parent.id);
    expect(seen.children).toEqual([{ ...offered, state: 'active' }]);
    expect(JSON.stringify(seen)).not.toContain(grant.id);
    const { revocations } = await owner.client().complete(parent.id, { wait: 30 });
    expect(revocations).toMatchObject([{ grant_id: grant.id }]);
    expect(await other.client().task(task.id)).toMatchObject({ state: 'revoked', ended_by: 'parent_ended' });
    const events = await other.client().timeline(task.id);
    expect(events.map(({ type }) => type).slice(0, 2)).toEqual(['task.offered', 'task.claimed']);
    expect(events[0]?.payload).toMatchObject({
      ...{ parent_id: parent.id, by: `dev:agent-recon ${owner.key.thumbprint}`, signed_by: 'owner' },
    });
  });

  test('may delegate further, as deep as its parent says, and all of the tree is seen from above', async () => {
    const child = await owner.beget(parent, other, { maxDepth: 1 });
    const third = await Agent.make(house);
    const grandchild = await other.beget(child, third);
    await third.client().issue(grandchild.id, { entitlement: READ });
    const refused = await third.call('POST', children(grandchild), {
      delegation: await third.offerOf(grandchild, owner),
    });
    expect(outcome(refused)).toEqual([403, 'excessive_delegation']);
    expect((await owner.client().task(parent.id)).children).toMatchObject([
      { id: child.id, parent_id: parent.id },
      { id: grandchild.id, parent_id: child.id },
    ]);
    expect((await other.client().task(child.id)).children).toMatchObject([{ id: grandchild.id }]);
    await other.client().cancel(child.id);
    expect((await owner.client().task(parent.id)).children).toMatchObject([
      { state: 'cancelled', ended_by: 'cancelled' },
      { state: 'revoked', ended_by: 'parent_ended' },
    ]);
    expect((await owner.client().task(parent.id)).state).toBe('active');
  });

  test('wakes who waits for its parent when it is offered, claimed and ended', async () => {
    const listener = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
    await listener.connect();
    try {
      let told = '';
      listener.on('notification', ({ payload = '' }) => (told += payload));
      await listener.query('LISTEN mayfly_changes');
      const tells = async <T>(work: Promise<T>): Promise<T> => {
        told = '';
        const done = await work;
        await expect.poll(() => told).toContain(parent.id.slice(5));
        return done;
      };
      const { id } = await tells(owner.delegate(parent, other));
      await tells(other.client().claim(id));
      await tells(other.client().complete(id));
    } finally {
      await listener.end();
    }
  });
});

describe('at its birth', () => {
  test('times are cut to its parent’s, and that is told', async () => {
    const late = new Date(Date.parse(parent.not_after) + 60_000);
    const { status, body } = await offer({ notAfter: late, maxTtlSeconds: 600 });
    expect([status, body['cut']]).toEqual([201, { asked_not_after: late.toISOString(), asked_max_ttl_seconds: 600 }]);
    const { task } = await other.client().claim((body['task'] as TaskStanding).id);
    expect(task.not_after).toBe(parent.not_after);
    const { cut } = await other.client().issue(task.id, { entitlement: READ, ttl_seconds: 500 });
    expect(cut).toMatchObject({ by: 'request', granted_seconds: 120 });
  });

  test('it has its parent’s params, whether it says them or not', async () => {
    for (const params of [{}, { tenant: 'acme' }]) await owner.delegate(parent, other, { params });
    const rows = await house.onStore<{ ceiling: unknown }>('SELECT ceiling FROM mayfly.tasks WHERE parent_id = $1', [
      parent.id.slice(5),
    ]);
    const ceiling = { entitlements: [READ], params: { tenant: 'acme' }, maxTtlSeconds: 120 };
    expect(rows).toEqual([{ ceiling }, { ceiling }]);
  });

  test('a task that may have none below it has none', async () => {
    const flat = await owner.open({ maxDepth: 0 });
    const reply = await owner.call('POST', children(flat), { delegation: await owner.offerOf(flat, other) });
    expect(outcome(reply)).toEqual([403, 'excessive_delegation']);
  });

  test('a workload that the issuer may not name is refused', async () => {
    const stranger = await Agent.make(house, 'agent-nobody-named');
    const reply = await owner.call('POST', children(parent), { delegation: await owner.offerOf(parent, stranger) });
    expect(outcome(reply)).toEqual([403, 'issuer_may_not_state']);
  });

  test('an ended parent has no more children', async () => {
    await owner.client().complete(parent.id);
    expect(outcome(await offer())).toEqual([409, 'task_ended']);
    expect(await childrenOf(parent)).toEqual([]);
  });

  test('a tree has so many tasks and no more', async () => {
    await house.onStore(
      `INSERT INTO mayfly.tasks SELECT (jsonb_populate_record(t, jsonb_build_object('id', n, 'parent_id', t.id, 'depth', 1,
         'external_id', n, 'jti', n))).* FROM mayfly.tasks t, (SELECT gen_random_uuid() AS n FROM generate_series(1, 998)) n WHERE t.id = $1`,
      [parent.id.slice(5)],
    );
    expect((await offer()).status).toBe(201);
    expect(outcome(await offer())).toEqual([409, 'tree_full']);
    expect(await childrenOf(parent)).toHaveLength(999);
  });
});

describe('an offer', () => {
  test('is of use to nobody before it is claimed, and its workload may decline it', async () => {
    const { id } = await owner.delegate(parent, other);
    const path = `/v1/tasks/${id}`;
    expect(outcome(await issue(other, { ...parent, id }))).toEqual([409, 'task_offered']);
    expect(outcome(await other.call('POST', `${path}/complete`, {}))).toEqual([409, 'task_offered']);
    expect(outcome(await other.call('POST', `${path}/children`, { delegation: 'a.b.c' }))).toEqual([
      403,
      'excessive_delegation',
    ]);
    expect((await other.call('POST', `${path}/cancel`, {})).body['task']).toMatchObject({ state: 'cancelled' });
    expect(outcome(await other.call('POST', `${path}/claim`, {}))).toEqual([409, 'task_ended']);
  });

  test('is nothing to all others', async () => {
    const { id } = await owner.delegate(parent, other);
    const stranger = await Agent.make(house, 'agent-support');
    const thief = new Agent(house, 'agent-recon', other.key);
    for (const agent of [owner, stranger, thief])
      for (const [method, tail] of [
        ['POST', '/claim'],
        ['GET', ''],
        ['POST', '/cancel'],
        ['GET', '/timeline'],
      ] as const)
        expect(outcome(await agent.call(method, `/v1/tasks/${id}${tail}`, method === 'POST' ? {} : undefined))).toEqual(
          [404, 'not_found'],
        );
    const token = await house.token('agent-support');
    expect(outcome(await ask(house.url, 'POST', `/v1/tasks/${id}/claim`, { token }))).toEqual([404, 'not_found']);
    expect((await ask(house.url, 'POST', `/v1/tasks/${id}/claim`)).status).toBe(401);
    expect((await other.client().claim(id)).task.state).toBe('active');
  });

  test('that is claimed belongs to who claimed it, not to who gave it', async () => {
    const child = await owner.beget(parent, other);
    expect(outcome(await issue(owner, child))).toEqual([404, 'not_found']);
    expect(outcome(await owner.call('GET', `/v1/tasks/${child.id}`))).toEqual([404, 'not_found']);
    expect(outcome(await other.call('GET', `/v1/tasks/${parent.id}`))).toEqual([404, 'not_found']);
    const repeated = await other.call('POST', `/v1/tasks/${child.id}/claim`, {});
    expect([repeated.status, repeated.body['task']]).toEqual([200, child]);
  });

  test('lapses with its delegation, and can not be claimed after that', async () => {
    const { id } = await owner.delegate(parent, other, { seconds: 1 });
    const path = `/v1/tasks/${id}`;
    await expect
      .poll(async () => (await other.call('GET', path)).body, { timeout: 60_000 })
      .toMatchObject({ state: 'cancelled', ended_by: 'expired' });
    expect(outcome(await other.call('POST', `${path}/claim`, {}))).toEqual([409, 'task_ended']);
    const [told] = await house.onStore(
      `SELECT cause, payload FROM mayfly.audit_events WHERE task_id = $1 AND type = 'task.cancelled'`,
      [id.slice(5)],
    );
    expect(told).toEqual({ cause: 'expired', payload: { by: 'deadline' } });
    expect((await owner.client().task(parent.id)).state).toBe('active');
  });

  test('ends with its parent', async () => {
    const { id } = await owner.delegate(parent, other);
    await owner.client().cancel(parent.id);
    expect(await other.client().task(id)).toMatchObject({ state: 'cancelled', ended_by: 'parent_ended' });
    expect(outcome(await other.call('POST', `/v1/tasks/${id}/claim`, {}))).toEqual([409, 'task_ended']);
  });

  test.each([
    ['that is suspended', `state = 'suspended'`, [409, 'task_suspended']],
    ['in another phase', `phase = 'closing'`, [403, 'not_in_phase']],
  ])('can not be claimed below a task %s', async (_what, change, refusal) => {
    const { id } = await owner.delegate(parent, other);
    await set(parent, change);
    expect(outcome(await other.call('POST', `/v1/tasks/${id}/claim`, {}))).toEqual(refusal);
  });

  test('is not for an operator to make, nor to claim', async () => {
    const { id } = await owner.delegate(parent, other);
    const operators = operatorsOf(house);
    expect((await operators.post(`/v1/tasks/${id}/claim`)).status).toBe(401);
    expect((await operators.post(children(parent), { delegation: 'a.b.c' })).status).toBe(401);
  });
});

describe('a delegation', () => {
  test('counts once: again it is the same child, and with another payload it is refused', async () => {
    const delegation = await owner.offerOf(parent, other);
    const first = await owner.call('POST', children(parent), { delegation });
    const again = await owner.call('POST', children(parent), { delegation });
    expect([first.status, again.status, again.body['task']]).toEqual([201, 200, first.body['task']]);
    const changed = (entitlements: string[]) =>
      delegationByIssuer(house, parent, other, ({ claims }) => {
        claims['jti'] = `once-${parent.id}`;
        claims['authorization_details'] = [{ type: 'mayfly', entitlements }];
      });
    const [one, two] = [await changed([READ]), await changed([PAYMENTS])];
    expect((await owner.call('POST', children(parent), { delegation: one })).status).toBe(201);
    expect(outcome(await owner.call('POST', children(parent), { delegation: two }))).toEqual([
      401,
      'task_request_used',
    ]);
    expect(await childrenOf(parent)).toHaveLength(2);
  });

  test('that comes twenty times at once to two replicas makes one child', async () => {
    const replica = await house.startReplica();
    const delegation = await owner.offerOf(parent, other);
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        owner.call('POST', children(parent), { delegation }, n % 2 === 0 ? house.url : replica.url),
      ),
    );
    await replica.stop();
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(1);
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(19);
    expect(await childrenOf(parent)).toHaveLength(1);
  });

  test('of the issuer is as good as the owner’s, but only its owner brings it', async () => {
    const delegation = await delegationByIssuer(house, parent, other);
    expect(outcome(await other.call('POST', children(parent), { delegation }))).toEqual([404, 'not_found']);
    const { status, body } = await owner.call('POST', children(parent), { delegation });
    expect(status).toBe(201);
    expect((await other.client().claim((body['task'] as TaskStanding).id)).task.state).toBe('active');
  });

  test('is for one parent: neither another task of its owner’s nor another’s', async () => {
    const second = await owner.open();
    const mine = await owner.offerOf(parent, other);
    const theirs = await delegationByIssuer(house, parent, other);
    // By its `iss` it is no issuer's, and by its own id it is not this task's.
    expect(outcome(await owner.call('POST', children(second), { delegation: mine }))).toEqual([
      401,
      'request_issuer_unknown',
    ]);
    expect(outcome(await owner.call('POST', children(second), { delegation: theirs }))).toEqual([
      401,
      'request_task_wrong',
    ]);
    expect(await childrenOf(second)).toEqual([]);
  });

  test('by another key than the task’s is refused', async () => {
    const delegation = await other.offerOf(parent, other);
    expect(outcome(await owner.call('POST', children(parent), { delegation }))).toEqual([401, 'request_key_unknown']);
  });

  test('opens no task and proves nothing, and a task request attaches to no parent', async () => {
    for (const request of [
      await owner.offerOf(parent, other),
      await delegationByIssuer(house, parent, other),
      await eventOf(house, parent.id, { op: 'complete' }),
    ])
      expect(outcome(await owner.call('POST', '/v1/tasks', { request }))).toEqual([401, 'request_type_wrong']);
    const request = await house.sign({ keyThumbprint: owner.key.thumbprint });
    expect(outcome(await owner.call('POST', children(parent), { delegation: request }))).toEqual([
      401,
      'request_type_wrong',
    ]);
    const token = await house.token();
    const headers = { dpop: await owner.offerOf(parent, other) };
    expect(outcome(await ask(house.url, 'GET', `/v1/tasks/${parent.id}`, { token, headers }))).toEqual([
      401,
      'proof_type_wrong',
    ]);
    const claiming = await delegationByIssuer(house, parent, owner, ({ header, claims }) => {
      header['typ'] = 'agent-task+jwt';
      Object.assign(claims, {
        sub: 'user:dana',
        parent_id: parent.id,
        task: { ...Object(claims['task']), id: parent.id },
      });
    });
    const { status, body } = await owner.call('POST', '/v1/tasks', { request: claiming });
    expect([status, body['task']]).toEqual([201, expect.objectContaining({ parent_id: null })]);
    expect(await childrenOf(parent)).toEqual([]);
  });
});
