import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { ask, type Reply } from '../support/ask.ts';
import { aboutTask, ENTITIES, evaluateAs, type Question, said, SCHEMA, TYPES } from '../support/authzen.ts';
import { eventOf } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';

const ONCE = '@id("once") @single_use permit (principal, action == Action::"can_edit", resource is document);';
const FREELY = '@id("freely") permit (principal, action == Action::"read", resource is document);';
const PERMITTED = [200, true, undefined];
const NOT_USABLE = [200, false, 'permit_not_usable'];

let house: House;
let replica: { url: string };
let task: string;
beforeAll(async () => {
  house = await startHouse({
    files: { [SCHEMA]: TYPES, 'entities.yaml': ENTITIES, 'policies/evaluating.cedar': `${ONCE}\n${FREELY}` },
  });
  replica = await house.startReplica();
});
afterAll(() => house?.stop());
beforeEach(async () => {
  task = (await house.client().openTask(await house.sign({ phase: 'plan' }))).task.id;
});

const contextOf = ({ body }: Reply) => Object(body['context']) as Record<string, unknown>;
const edit = (more: Question = {}): Question =>
  aboutTask(task, { action: { name: 'can_edit', properties: { method: 'PUT', amount: 1e3 } }, ...more });
const evaluate = async (body: Question): Promise<Reply> => await evaluateAs(house, 'agent-recon', body);
async function given(): Promise<string> {
  const reply = await evaluate(edit());
  expect([said(reply), contextOf(reply)['use_limit']]).toEqual([PERMITTED, 1]);
  return String(contextOf(reply)['evaluation_id']);
}
const using = (permit: unknown, more: Question = {}): Question => edit({ context: { evaluation_id: permit }, ...more });

test('a permit of @single_use is of use once', async () => {
  const permit = await given();
  const used = await evaluate(using(permit));
  expect([said(used), contextOf(used)['use_limit']]).toEqual([PERMITTED, undefined]);
  expect(said(await evaluate(using(permit)))).toEqual(NOT_USABLE);
  expect(said(await evaluate(using(contextOf(used)['evaluation_id'])))).toEqual(NOT_USABLE);
  const uses = await house.onStore(
    `SELECT decision, payload->>'single_use' AS use, payload->>'refusal' AS refusal FROM mayfly.audit_events
     WHERE task_id = $1 AND type = 'use.evaluated' ORDER BY ts, id`,
    [task.slice(5)],
  );
  expect(uses).toEqual([
    { decision: 'permit', use: 'given', refusal: null },
    { decision: 'permit', use: 'used', refusal: null },
    { decision: 'deny', use: null, refusal: 'permit_not_usable' },
    { decision: 'deny', use: null, refusal: 'permit_not_usable' },
  ]);
});

test('of many who use it at once, on two replicas, one does', async () => {
  const body = using(await given());
  const token = await house.token();
  const replies = await Promise.all(
    Array.from({ length: 16 }, (_, n) =>
      ask(n % 2 === 0 ? house.url : replica.url, 'POST', '/access/v1/evaluation', { token, body }),
    ),
  );
  expect(replies.map(said).filter(([, decision]) => decision === true)).toHaveLength(1);
});

test('other arguments, another resource, another action or another context are refused, and leave it of use', async () => {
  const permit = await given();
  for (const more of [
    { action: { name: 'can_edit', properties: { method: 'PUT', amount: 1001 } } },
    { action: { name: 'can_edit' } },
    { action: { name: 'read', properties: { method: 'PUT', amount: 1000 } } },
    { resource: { type: 'document', id: '2' } },
    { resource: { type: 'document', id: '1', properties: { any: 'thing' } } },
    { context: { evaluation_id: permit, time: 'now' } },
  ]) {
    expect(said(await evaluate(using(permit, more)))).toEqual(NOT_USABLE);
  }
  // The same arguments in another order and another writing are the same.
  const rewritten = { name: 'can_edit', properties: { amount: 1000, method: 'PUT' } };
  expect(said(await evaluate(using(permit, { action: rewritten })))).toEqual(PERMITTED);
});

test('it is of use to the task alone that it was given to, and as that then stood', async () => {
  const permit = await given();
  const other = (await house.client().openTask(await house.sign())).task.id;
  expect(said(await evaluate(using(permit, { subject: { type: 'task', id: other } })))).toEqual(NOT_USABLE);
  const event = await eventOf(house, task, { op: 'phase', phase: 'execute' });
  await ask(house.url, 'POST', `/v1/tasks/${task}/events`, { token: await house.token(), body: { event } });
  expect(said(await evaluate(using(permit)))).toEqual(NOT_USABLE);
});

test('it is decided again: what is not permitted any more is not done by it', async () => {
  const permit = await given();
  await house.client().complete(task, { wait: 30 });
  expect(said(await evaluate(using(permit)))).toEqual([200, false, 'task_ended']);
});

test('it gets too old', async () => {
  const permit = await given();
  await house.onStore(`UPDATE mayfly.single_uses SET valid_until = clock_timestamp() WHERE decision_id = $1`, [
    permit.slice(4),
  ]);
  expect(said(await evaluate(using(permit)))).toEqual(NOT_USABLE);
});

test.each(['dec_018f0000-0000-7000-8000-000000000000', 'x', 7, null])('%j is no permit', async (permit) => {
  expect(said(await evaluate(using(permit)))).toEqual(NOT_USABLE);
});

test('what permits without @single_use limits nothing', async () => {
  const reply = await evaluate(aboutTask(task));
  expect([said(reply), contextOf(reply)['use_limit']]).toEqual([PERMITTED, undefined]);
  const permit = contextOf(reply)['evaluation_id'];
  expect(said(await evaluate(aboutTask(task, { context: { evaluation_id: permit } })))).toEqual(NOT_USABLE);
});
