import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import type { StepName } from '../../src/domain/step.ts';
import { killsPageBody } from '../../src/http/kill-bodies.ts';
import { ask, type Reply } from '../support/ask.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const WAIT = { timeout: 60_000, interval: 20 };
const INVOICES = 'ledger-db/read-invoices';
const REASON = { reason: 'the races' };
const AGENT = { scope: 'agent', id: 'dev:agent-recon' };
const TARGET = { scope: 'target', id: 'ledger-db' };

let house: House;
/** The other replica: what is asked there runs while the first one is held. */
let replica: RunningBroker;
let operators: Operators;
let owner: Agent;
let other: Agent;
let task: TaskBody;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', inProcess: false });
  replica = await house.startReplica();
  operators = operatorsOf(house);
  owner = await Agent.make(house);
  other = await Agent.make(house, 'agent-support');
});
afterAll(() => house?.stop());
beforeEach(async () => {
  task = await owner.open();
});
afterEach(async () => {
  await house.broker.signal('SIGCONT');
  await house.broker.fallAt([]);
  const { items } = killsPageBody.parse((await operators.get('/v1/kill?standing=true')).body);
  const token = await operators.token('operator');
  for (const { id } of items) await ask(house.url, 'DELETE', `/v1/kill/${id}`, { token });
});

/** Asks the first replica, and holds all of it when it comes to that step. */
async function held(step: StepName, asking: () => Promise<Reply>): Promise<{ goOn: () => Promise<Reply> }> {
  await house.broker.fallAt([{ step, signal: 'SIGSTOP' }]);
  const asked = asking();
  await house.broker.reached(step);
  return {
    goOn: async () => {
      await house.broker.signal('SIGCONT');
      return await asked;
    },
  };
}

/** So many wait for a lock in the store. */
const waiting = (count: number) =>
  vi.waitFor(
    async () => expect(await house.onStore('SELECT FROM pg_locks WHERE NOT granted')).toHaveLength(count),
    WAIT,
  );

const kill = async (body: object, url = replica.url): Promise<Reply> =>
  await ask(url, 'POST', '/v1/kill', { token: await operators.token('operator'), body: { ...body, ...REASON } });
const open = async (url = house.url): Promise<Reply> => {
  const request = await house.sign({ keyThumbprint: owner.key.thumbprint, phase: 'execute', maxDepth: 1 });
  return await owner.call('POST', '/v1/tasks', { request }, url);
};
const issue = (url = house.url) => owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: INVOICES }, url);
const tasksAlive = () => house.onStore('SELECT FROM mayfly.tasks WHERE ended_at IS NULL');

/** Nothing that was ever granted is alive, here or there. */
async function nothingLives(): Promise<void> {
  expect(await house.onStore(`SELECT FROM mayfly.grants WHERE state IN ('minting', 'active')`)).toEqual([]);
  await vi.waitFor(
    async () =>
      expect(await house.onTarget(`SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'mfy\\_%'`)).toEqual(
        [],
      ),
    WAIT,
  );
}

describe('a task that is opened while its agent is killed', () => {
  test('never was, where it was asked before the kill and comes to the store after it', async () => {
    const asked = await held('open.before', open);
    expect((await kill(AGENT)).status).toBe(201);
    expect(outcome(await asked.goOn())).toEqual([403, 'killed']);
    expect(await tasksAlive()).toEqual([]);
  });

  test('never was, where the kill is not committed yet', async () => {
    const killing = await held('kill.before', () => kill(AGENT, house.url));
    const asked = open(replica.url);
    await waiting(1);
    expect((await killing.goOn()).status).toBe(201);
    expect(outcome(await asked)).toEqual([403, 'killed']);
    expect(await tasksAlive()).toEqual([]);
  });
});

describe('a grant that is asked for while it is killed', () => {
  test.each([
    ['its agent', AGENT],
    ['its target', TARGET],
    ['all', { scope: 'all' }],
  ])('is not begun, where the kill of %s is not committed yet', async (_what, body) => {
    const killing = await held('kill.before', () => kill(body, house.url));
    const asked = issue(replica.url);
    await waiting(1);
    await killing.goOn();
    expect(outcome(await asked)).toEqual([403, 'killed']);
    await nothingLives();
  });

  test.each([
    ['its agent', AGENT],
    ['its target', TARGET],
  ])('is not begun, where it was decided before the kill of %s', async (_what, body) => {
    const asked = await held('intend.before', issue);
    expect((await kill(body)).status).toBe(201);
    expect(outcome(await asked.goOn())).toEqual([403, 'killed']);
    expect(await house.onStore('SELECT FROM mayfly.grants WHERE task_id = $1', [task.id.slice(5)])).toEqual([]);
  });

  test.each([
    ['its agent', AGENT, 'mint.before'],
    ['its target', TARGET, 'mint.before'],
    ['its target', TARGET, 'mint.after'],
    ['all', { scope: 'all' }, 'activate.before'],
  ] as const)('is not delivered, where the kill of %s (%j) finds it at %s', async (_what, body, step) => {
    const asked = await held(step, issue);
    const { status, body: said } = await kill(body);
    expect([status, said['ended']]).toEqual([201, expect.objectContaining({ grants: 1 })]);
    const { status: answered } = await asked.goOn();
    expect(answered).toBeGreaterThanOrEqual(400);
    const rows = await house.onStore('SELECT activated_at, ended_by FROM mayfly.grants WHERE task_id = $1', [
      task.id.slice(5),
    ]);
    expect(rows).toEqual([{ activated_at: null, ended_by: 'operator' }]);
    await nothingLives();
  });

  test('ends, where it became active before', async () => {
    const asked = await held('activate.after', issue);
    expect((await kill(TARGET)).status).toBe(201);
    expect((await asked.goOn()).status).toBe(201);
    await nothingLives();
  });
});

test.each(['decide-renewal.after', 'renew.after'] as const)(
  'a renewal that a kill finds at %s is none',
  async (step) => {
    const { grant } = await owner.client().issue(task.id, { entitlement: INVOICES, ttl_seconds: 60 });
    const renew = () => owner.call('POST', `/v1/grants/${grant.id}/renew`, { ttl_seconds: 300 });
    const asked = await held(step, renew);
    expect((await kill(TARGET)).status).toBe(201);
    expect((await asked.goOn()).status).toBeGreaterThanOrEqual(400);
    const [row] = await house.onStore<{ deadline: Date }>('SELECT deadline FROM mayfly.grants WHERE id = $1', [
      grant.id.slice(4),
    ]);
    expect(row?.deadline.toISOString()).toBe(grant.deadline);
    await nothingLives();
  },
);

describe('a child that is claimed while its workload is killed', () => {
  const OTHER = { scope: 'agent', id: 'dev:agent-support' };
  let id: string;
  beforeEach(async () => {
    ({ id } = await owner.delegate(task, other));
  });
  const claim = (url = house.url) => other.call('POST', `/v1/tasks/${id}/claim`, {}, url);
  const child = async () =>
    (await house.onStore('SELECT state, ended_by FROM mayfly.tasks WHERE id = $1', [id.slice(5)]))[0];

  test('never lives, where it comes to the store after the kill', async () => {
    const asked = await held('spend-proof.after', claim);
    expect((await kill(OTHER)).status).toBe(201);
    expect(outcome(await asked.goOn())).toEqual([403, 'killed']);
    expect(await child()).toEqual({ state: 'cancelled', ended_by: 'operator' });
  });

  test('is ended, where the claim is not committed yet', async () => {
    const asked = await held('claim-task.before', claim);
    const killing = kill(OTHER);
    await waiting(1);
    expect((await asked.goOn()).status).toBe(200);
    expect((await killing).status).toBe(201);
    expect(await child()).toEqual({ state: 'revoked', ended_by: 'operator' });
  });

  test('is not offered anew', async () => {
    const delegation = await owner.offerOf(task, other);
    const asked = await held('spend-proof.after', () =>
      owner.call('POST', `/v1/tasks/${task.id}/children`, { delegation }),
    );
    expect((await kill(OTHER)).status).toBe(201);
    expect(outcome(await asked.goOn())).toEqual([403, 'killed']);
    const born = `SELECT FROM mayfly.tasks WHERE parent_id = $1 AND ended_at IS NULL`;
    expect(await house.onStore(born, [task.id.slice(5)])).toEqual([]);
  });
});

/** Opens, asks, renews, delegates, claims and asks for the child, again and again, until both agents were told often that they are stopped. */
async function liveOn(url: string, begun: () => void): Promise<void> {
  const refusals: Reply[] = [];
  const attempt = async (asking: Promise<Reply>): Promise<Reply['body']> => {
    const reply = await asking;
    if (reply.status < 300) return reply.body;
    if (reply.body['code'] === 'killed') refusals.push(reply);
    throw new Refused();
  };
  while (refusals.length < 5) {
    try {
      const opened = Object((await attempt(open(url)))['task']);
      const wanted = { entitlement: INVOICES, ttl_seconds: 60 };
      const { grant } = await attempt(owner.call('POST', `/v1/tasks/${opened.id}/grants`, wanted, url));
      const renewing = owner.call('POST', `/v1/grants/${Object(grant).id}/renew`, { ttl_seconds: 120 }, url);
      const delegation = await owner.offerOf(opened, other);
      const offering = owner.call('POST', `/v1/tasks/${opened.id}/children`, { delegation }, url);
      const [, { task: child }] = await Promise.all([attempt(renewing), attempt(offering)]);
      await attempt(other.call('POST', `/v1/tasks/${Object(child).id}/claim`, {}, url));
      await attempt(other.call('POST', `/v1/tasks/${Object(child).id}/grants`, wanted, url));
      begun();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
}
class Refused extends Error {}

test.each([
  ['its agent', AGENT],
  ['all', { scope: 'all' }],
])(
  'a crowd on two replicas that does all that an agent does: nothing begins once %s is killed',
  async (_what, body) => {
    let lives = 0;
    const asking = Promise.all(
      [house.url, replica.url].flatMap((url) => Array.from({ length: 4 }, () => liveOn(url, () => void lives++))),
    );
    await vi.waitFor(() => expect(lives).toBeGreaterThan(16), WAIT);
    const reply = await kill(body);
    await asking;
    const since = [reply.body['since']];
    const later = (text: string) => house.onStore(text, since);
    expect(await later('SELECT FROM mayfly.grants WHERE activated_at > $1')).toEqual([]);
    expect(await later('SELECT FROM mayfly.tasks WHERE created_at > $1')).toEqual([]);
    const begins = `('task.opened', 'task.offered', 'task.claimed', 'grant.renewed')`;
    expect(await later(`SELECT type FROM mayfly.audit_events WHERE ts > $1 AND type IN ${begins}`)).toEqual([]);
    expect(await tasksAlive()).toEqual([]);
    await nothingLives();
  },
);

test('a kill and the end of a tree that it covers are in nobody’s way', async () => {
  const child = await owner.beget(task, other);
  await other.client().issue(child.id, { entitlement: INVOICES });
  await owner.client().issue(task.id, { entitlement: INVOICES });
  const ending = await held('end.before', () => owner.call('POST', `/v1/tasks/${task.id}/complete`, {}));
  const killing = kill({ scope: 'task', id: task.id });
  await waiting(1);
  expect((await ending.goOn()).status).toBe(202);
  const { status, body } = await killing;
  // What a worker had in hand or had contained by then needed no haste.
  const hastened = expect.toSatisfy((count: number) => count >= 0 && count <= 2);
  expect([status, body['ended']]).toEqual([201, { tasks: 0, grants: 0, hastened }]);
  await nothingLives();
  const told = await house.onStore(`SELECT FROM mayfly.audit_events WHERE task_id = $1 AND type LIKE 'task.%'`, [
    task.id.slice(5),
  ]);
  expect(told).toHaveLength(2);
});
