import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import type { StepName } from '../../src/domain/step.ts';
import type { Reply } from '../support/ask.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { Agent, eventOf, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const WAIT = { timeout: 60_000, interval: 20 };

let house: House;
/** The other replica: what is asked there runs while the first one is held. */
let replica: RunningBroker;
let owner: Agent;
let other: Agent;
let parent: TaskBody;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', inProcess: false, env: { MAYFLY_SWEEP_SECONDS: '1' } });
  replica = await house.startReplica();
  owner = await Agent.make(house);
  other = await Agent.make(house, 'agent-support');
});
afterAll(() => house?.stop());
beforeEach(async () => {
  parent = await owner.open();
});
afterEach(async () => {
  await house.broker.signal('SIGCONT');
  await house.broker.fallAt([]);
});

/** Asks the first replica, and holds all of it when it comes to that step. */
async function held(step: StepName, ask: () => Promise<Reply>): Promise<{ goOn: () => Promise<Reply> }> {
  await house.broker.fallAt([{ step, signal: 'SIGSTOP' }]);
  const asked = ask();
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

const end = (url = replica.url) => owner.call('POST', `/v1/tasks/${parent.id}/complete`, {}, url);
const stateOf = async (id: string) =>
  await house.onStore('SELECT state, ended_by FROM mayfly.tasks WHERE id = $1', [id.slice(5)]);
const children = () => house.onStore('SELECT id FROM mayfly.tasks WHERE parent_id = $1', [parent.id.slice(5)]);

describe('a child that is offered while its parent ends', () => {
  let delegation: string;
  beforeEach(async () => {
    delegation = await owner.offerOf(parent, other);
  });
  const delegate = (url = house.url) => owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation }, url);

  test('never was, where it was asked before the end and comes to the store after it', async () => {
    const asked = await held('spend-proof.after', delegate);
    expect((await end()).status).toBe(202);
    expect(outcome(await asked.goOn())).toEqual([409, 'task_ended']);
    expect(await children()).toEqual([]);
  });

  test('never was, where the end is not committed yet', async () => {
    const ending = await held('end.before', () => end(house.url));
    const asked = delegate(replica.url);
    await waiting(1);
    expect((await ending.goOn()).status).toBe(202);
    expect(outcome(await asked)).toEqual([409, 'task_ended']);
    expect(await children()).toEqual([]);
  });

  test('is ended with it, where its birth is not committed yet', async () => {
    const asked = await held('delegate.before', delegate);
    const ending = end();
    await waiting(1);
    const { status, body } = await asked.goOn();
    expect([status, body['task']]).toEqual([201, expect.objectContaining({ state: 'offered' })]);
    expect((await ending).status).toBe(202);
    const [child] = await children();
    expect(await stateOf(`task_${String(child?.['id'])}`)).toEqual([{ state: 'cancelled', ended_by: 'parent_ended' }]);
  });
});

describe('a child that is claimed while its parent ends', () => {
  let id: string;
  beforeEach(async () => {
    ({ id } = await owner.delegate(parent, other));
  });
  const claim = (url = house.url) => other.call('POST', `/v1/tasks/${id}/claim`, {}, url);

  test('never lives, where it was claimed before the end and that comes to the store after it', async () => {
    const asked = await held('spend-proof.after', claim);
    expect((await end()).status).toBe(202);
    expect(outcome(await asked.goOn())).toEqual([409, 'task_ended']);
    expect(await stateOf(id)).toEqual([{ state: 'cancelled', ended_by: 'parent_ended' }]);
  });

  test('never lives, where the end is not committed yet', async () => {
    const ending = await held('end.before', () => end(house.url));
    const asked = claim(replica.url);
    await waiting(1);
    await ending.goOn();
    expect(outcome(await asked)).toEqual([409, 'task_ended']);
    expect(await stateOf(id)).toEqual([{ state: 'cancelled', ended_by: 'parent_ended' }]);
  });

  test('is ended with it, where the claim is not committed yet', async () => {
    const asked = await held('claim-task.before', claim);
    const ending = end();
    await waiting(1);
    expect((await asked.goOn()).status).toBe(200);
    await ending;
    expect(await stateOf(id)).toEqual([{ state: 'revoked', ended_by: 'parent_ended' }]);
  });

  test('gets no credential that was made meanwhile', async () => {
    await claim();
    const issue = () => other.call('POST', `/v1/tasks/${id}/grants`, { entitlement: 'ledger-db/read-invoices' });
    const asked = await held('mint.after', issue);
    await end();
    expect(outcome(await asked.goOn())).toEqual([409, 'task_ended']);
    const grants = await house.onStore('SELECT ended_by FROM mayfly.grants WHERE task_id = $1', [id.slice(5)]);
    expect(grants).toEqual([{ ended_by: 'parent_ended' }]);
  });
});

test('a child that is claimed at its last moment lives, whoever finds that the offer has lapsed', async () => {
  const { id } = await owner.delegate(parent, other, { seconds: 5 });
  const asked = await held('claim-task.before', () => other.call('POST', `/v1/tasks/${id}/claim`, {}));
  // The other replica's sweep wants to end it, and has not seen the claim.
  await waiting(1);
  expect((await asked.goOn()).status).toBe(200);
  await waiting(0);
  expect(await stateOf(id)).toEqual([{ state: 'active', ended_by: null }]);
  await other.client().issue(id, { entitlement: 'ledger-db/read-invoices' });
});

test('two that claim one child at once: one task, one claim', async () => {
  const { id } = await owner.delegate(parent, other);
  const asked = await held('claim-task.before', () => other.call('POST', `/v1/tasks/${id}/claim`, {}));
  const second = other.call('POST', `/v1/tasks/${id}/claim`, {}, replica.url);
  await waiting(1);
  expect([(await asked.goOn()).status, (await second).status]).toEqual([200, 200]);
  const told = await house.onStore(`SELECT FROM mayfly.audit_events WHERE task_id = $1 AND type = 'task.claimed'`, [
    id.slice(5),
  ]);
  expect(told).toHaveLength(1);
});

test('who asks while the phase moves is decided in the new one', async () => {
  parent = await owner.open({ phase: 'execute', entitlements: ['ledger-db/read-payments'] });
  const event = await eventOf(house, parent.id, { op: 'phase', phase: 'closing' });
  const moving = await held('move-phase.before', () => owner.call('POST', `/v1/tasks/${parent.id}/events`, { event }));
  const body = { entitlement: 'ledger-db/read-payments' };
  const asked = owner.call('POST', `/v1/tasks/${parent.id}/grants`, body, replica.url);
  await waiting(1);
  expect((await moving.goOn()).status).toBe(200);
  expect(outcome(await asked)).toEqual([403, 'denied_by_policy']);
});
