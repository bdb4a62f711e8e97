import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import type { Change } from '../support/forge.ts';
import { Agent, delegationByIssuer, eventOf, outcome } from '../support/delegating.ts';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const READ = 'ledger-db/read-invoices';

let house: House;
let owner: Agent;
/** Carries events, and owns none of the tasks. */
let messenger: Agent;
let task: TaskBody;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  owner = await Agent.make(house);
  messenger = await Agent.make(house, 'agent-support');
});
afterAll(() => house?.stop());
beforeEach(async () => {
  task = await owner.open({ phase: 'plan' });
});

const path = (to: { id: string } = task) => `/v1/tasks/${to.id}/events`;
const tell = async (said: Readonly<Record<string, unknown>>, change?: Change, by = messenger, query = '') =>
  await by.call('POST', `${path()}${query}`, { event: await eventOf(house, task.id, said, change) });
const stands = async () => {
  const { state, phase } = await owner.client().task(task.id);
  return [state, phase];
};

describe('what an issuer says of its task', () => {
  test.each([
    ['complete', 'completed'],
    ['cancel', 'cancelled'],
  ])('%s ends it and all that it held, whoever carries the word', async (op, state) => {
    const { grant } = await owner.client().issue(task.id, { entitlement: READ });
    const child = await owner.beget(task, messenger);
    const own = await messenger.client().issue(child.id, { entitlement: READ });
    const reply = await tell({ op, reason: 'the run is over' }, undefined, messenger, '?wait=30');
    expect(reply.status).toBe(200);
    const revocations = reply.body['revocations'] as { target: string; state: string }[];
    expect(revocations.map(({ target }) => target)).toEqual(['ledger-db', 'ledger-db']);
    expect(reply.body['task']).toMatchObject({ id: task.id, state, ended_by: state });
    // Its carrier is no owner.
    expect(reply.text).not.toContain(grant.id);
    expect(await owner.client().grant(grant.id)).toMatchObject({ state: 'revoked', ended_by: state });
    expect(await messenger.client().grant(own.grant.id)).toMatchObject({ state: 'revoked', ended_by: 'parent_ended' });
    const told = (await owner.client().timeline(task.id)).find(({ type }) => type === `task.${state}`);
    expect(told?.payload).toMatchObject({ by: 'issuer', reason: 'the run is over' });
    expect(told?.payload['carrier']).toBe(`dev:agent-support ${messenger.key.thumbprint}`);
  });

  test('an end is answered at once where nobody waits', async () => {
    const { status, body } = await tell({ op: 'complete' });
    expect([status, body['revocations']]).toEqual([202, []]);
  });

  test('phase moves it, forward only, and decisions are made in the new one', async () => {
    const pay = () => owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: 'ledger-db/read-payments' });
    task = await owner.open({ phase: 'plan', entitlements: ['ledger-db/read-payments'] });
    expect(outcome(await pay())).toEqual([403, 'denied_by_policy']);
    const { status, body } = await tell({ op: 'phase', phase: 'execute' });
    expect([status, body]).toEqual([200, { task: expect.objectContaining({ id: task.id, phase: 'execute' }) }]);
    expect((await pay()).status).toBe(201);
    expect(outcome(await tell({ op: 'phase', phase: 'plan' }))).toEqual([409, 'phase_passed']);
    expect((await tell({ op: 'phase', phase: 'execute' })).status).toBe(200);
    expect((await tell({ op: 'phase', phase: 'closing' })).status).toBe(200);
    expect(outcome(await tell({ op: 'phase', phase: 'nowhere' }))).toEqual([403, 'issuer_may_not_state']);
    expect(await stands()).toEqual(['active', 'closing']);
    const moves = (await owner.client().timeline(task.id)).filter(({ type }) => type === 'task.moved');
    expect(moves.map(({ payload }) => [payload['phase_before'], payload['phase']])).toEqual([
      ['plan', 'execute'],
      ['execute', 'closing'],
    ]);
  });

  test('phase takes along what follows it, and leaves what is bound to its own', async () => {
    const agents = await Promise.all([Agent.make(house), Agent.make(house), Agent.make(house)]);
    const [follower, below, bound] = agents;
    if (follower === undefined || below === undefined || bound === undefined) throw new Error('three were made');
    const following = await owner.beget(task, follower, { maxDepth: 1 });
    const further = await follower.beget(following, below);
    const staying = await owner.beget(task, bound, { phase: 'plan' });
    await tell({ op: 'phase', phase: 'execute' });
    const phases = (await owner.client().task(task.id)).children.map(({ id, phase }) => [id, phase]);
    expect(Object.fromEntries(phases)).toEqual({
      [following.id]: 'execute',
      [further.id]: 'execute',
      [staying.id]: 'plan',
    });
    await below.client().issue(further.id, { entitlement: READ });
    const refused = await bound.call('POST', `/v1/tasks/${staying.id}/grants`, { entitlement: READ });
    expect(outcome(refused)).toEqual([403, 'not_in_phase']);
    expect((await below.client().timeline(further.id)).find(({ type }) => type === 'task.moved')?.payload).toEqual({
      ...{ by: 'parent', parent_id: task.id, phase: 'execute', phase_before: 'plan' },
    });
  });

  test('an ended task is ended, whatever is said of it', async () => {
    await owner.client().cancel(task.id);
    expect(outcome(await tell({ op: 'phase', phase: 'execute' }))).toEqual([409, 'task_ended']);
    expect(outcome(await tell({ op: 'complete' }))).toEqual([409, 'task_ended']);
    expect((await tell({ op: 'cancel' })).status).toBe(202);
  });

  test('of a child too: an offer can be cancelled, but not completed', async () => {
    const offered = await owner.delegate(task, messenger);
    const say = async (op: string) =>
      await messenger.call('POST', path(offered), { event: await eventOf(house, offered.id, { op }) });
    expect(outcome(await say('complete'))).toEqual([409, 'task_offered']);
    expect((await messenger.client().task(offered.id)).state).toBe('offered');
    expect((await say('cancel')).body['task']).toMatchObject({ state: 'cancelled' });
    expect(await stands()).toEqual(['active', 'plan']);
  });

  test('may come by an operator, and not by a stranger', async () => {
    const event = await eventOf(house, task.id, { op: 'phase', phase: 'execute' });
    expect((await ask(house.url, 'POST', path(), { body: { event } })).status).toBe(401);
    expect((await operatorsOf(house).post(path(), { event }, 'viewer')).status).toBe(200);
    expect(await stands()).toEqual(['active', 'execute']);
  });
});

describe('an event', () => {
  test('counts once: its carrier is answered the same, and nobody else', async () => {
    const event = await eventOf(house, task.id, { op: 'phase', phase: 'execute' });
    const say = (by: Agent) => by.call('POST', path(), { event });
    const first = await say(messenger);
    await tell({ op: 'phase', phase: 'closing' });
    const again = await say(messenger);
    expect([first.status, again.status]).toEqual([200, 200]);
    expect(again.body['task']).toMatchObject({ phase: 'closing' });
    expect(outcome(await say(owner))).toEqual([401, 'task_request_used']);
    const end = await eventOf(house, task.id, { op: 'complete' });
    const ends = [];
    for (const by of [messenger, messenger, owner]) ends.push(outcome(await by.call('POST', path(), { event: end })));
    expect(ends).toEqual([
      [202, undefined],
      [202, undefined],
      [401, 'task_request_used'],
    ]);
    const told = (await owner.client().timeline(task.id)).map(({ type }) => type);
    expect(told.filter((type) => type !== 'task.opened')).toEqual(['task.moved', 'task.moved', 'task.completed']);
  });

  test('is not another one because its jti is the same', async () => {
    const said =
      (claims: object): Change =>
      (draft) =>
        void Object.assign(draft.claims, { jti: `j-${task.id}` }, claims);
    expect((await tell({ op: 'phase', phase: 'execute' }, said({}))).status).toBe(200);
    expect(outcome(await tell({ op: 'cancel' }, said({})))).toEqual([401, 'task_request_used']);
    expect(outcome(await tell({ op: 'phase', phase: 'execute' }, said({ reason: 'x' })))).toEqual([
      401,
      'task_request_used',
    ]);
    expect(await stands()).toEqual(['active', 'execute']);
  });

  test('that comes twenty times at once to two replicas moves the task once', async () => {
    const replica = await house.startReplica();
    const event = await eventOf(house, task.id, { op: 'phase', phase: 'closing' });
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        messenger.call('POST', path(), { event }, n % 2 === 0 ? house.url : replica.url),
      ),
    );
    await replica.stop();
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]));
    const told = (await owner.client().timeline(task.id)).filter(({ type }) => type === 'task.moved');
    expect(told).toHaveLength(1);
  });

  test('is none: a task request, a delegation, a workload token or a proof', async () => {
    const token = await house.token();
    for (const event of [
      await house.sign(),
      await delegationByIssuer(house, task, messenger),
      await owner.offerOf(task, messenger),
      token,
      await owner.key.prove('POST', `${house.url}${path()}`, token),
    ])
      expect(outcome(await messenger.call('POST', path(), { event }))).toEqual([401, 'request_type_wrong']);
  });

  test('is no delegation, no workload token and no proof', async () => {
    const event = await eventOf(house, task.id, { op: 'cancel' });
    const call = { method: 'POST', at: `/v1/tasks/${task.id}/children` };
    expect(outcome(await owner.call(call.method, call.at, { delegation: event }))).toEqual([401, 'request_type_wrong']);
    expect(outcome(await ask(house.url, 'GET', `/v1/tasks/${task.id}`, { token: event }))).toEqual([
      401,
      'workload_token_type_wrong',
    ]);
    const token = await house.token();
    const headers = { dpop: event };
    expect(outcome(await ask(house.url, 'GET', `/v1/tasks/${task.id}`, { token, headers }))).toEqual([
      401,
      'proof_type_wrong',
    ]);
  });

  test('of a task that is not there is answered like one of another issuer’s', async () => {
    const nowhere = { id: `task_${crypto.randomUUID()}` };
    const say = async (to: { id: string }) =>
      await messenger.call('POST', path(to), { event: await eventOf(house, to.id, { op: 'cancel' }) });
    expect(outcome(await say(nowhere))).toEqual([404, 'not_found']);
    await house.onStore(`UPDATE mayfly.tasks SET issuer = 'https://another.example' WHERE id = $1`, [task.id.slice(5)]);
    expect(outcome(await say(task))).toEqual([404, 'not_found']);
    expect(await stands()).toEqual(['active', 'plan']);
  });
});
