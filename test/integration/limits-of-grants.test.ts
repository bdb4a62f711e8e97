import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GrantBody, TaskBody } from '../../src/client/index.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';

const INVOICES = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';

let house: House;
let replica: { url: string };
beforeAll(async () => {
  const permit = '@id("all") permit (principal is Mayfly::Task, action, resource is Mayfly::Entitlement);';
  house = await startHouse({ files: { 'policies/test.cedar': permit } });
  replica = await house.startReplica();
});
afterAll(() => house?.stop());

const applyLimits = async (limits: string) =>
  await house.broker.apply({ ...house.files, ...(limits === '' ? {} : { 'limits.yaml': limits }) });

const open = async (workload = 'agent-recon'): Promise<TaskBody> => {
  const request = await house.sign({ workload, entitlements: [INVOICES, PAYMENTS] });
  return (await house.client(workload).openTask(request)).task;
};
const issue = async (task: TaskBody, entitlement: string, url = house.url, headers = {}): Promise<Reply> =>
  await ask(url, 'POST', `/v1/tasks/${task.id}/grants`, {
    ...{ token: await house.token(task.workload.slice('dev:'.length)), body: { entitlement }, headers },
  });
const told = ({ status, body }: Reply) => [status, body['code'], body['reasons']];
const grantOf = ({ body }: Reply) => body['grant'] as GrantBody;
const release = async (task: TaskBody, reply: Reply) =>
  await house.client(task.workload.slice('dev:'.length)).release(grantOf(reply).id, { wait: 30 });
const endAll = async (...tasks: readonly TaskBody[]) => {
  for (const { id, workload } of tasks) await house.client(workload.slice('dev:'.length)).cancel(id, { wait: 30 });
};

/** Everything asked for at once, on two replicas: what was permitted. */
async function race(count: number, asked: (n: number) => [TaskBody, string]): Promise<readonly GrantBody[]> {
  const replies = await Promise.all(
    Array.from({ length: count }, (_, n) => issue(...asked(n), n % 2 === 0 ? house.url : replica.url)),
  );
  const refused = replies.flatMap(({ status, body }) => (status === 201 ? [] : [`${status} ${String(body['code'])}`]));
  expect(new Set(refused)).toEqual(new Set(['403 limit_reached']));
  return replies.flatMap((reply) => (reply.status === 201 ? [grantOf(reply)] : []));
}

describe('a toxic combination', () => {
  const LIMITS = `toxic: [{ name: both, one: { entitlements: [${INVOICES}] }, other: { sensitivities: [restricted] }, reason: Not both. }]`;

  test('is held by no tree at once, whichever comes first, and by two trees it is', async () => {
    await applyLimits(LIMITS);
    const [task, other] = [await open(), await open()];
    const first = await issue(task, PAYMENTS);
    expect(told(await issue(task, INVOICES))).toEqual([403, 'limit_reached', ['Not both.']]);
    expect((await issue(task, PAYMENTS)).status).toBe(201);
    expect((await issue(other, INVOICES)).status).toBe(201);
    expect(told(await issue(other, PAYMENTS))).toEqual([403, 'limit_reached', ['Not both.']]);
    expect((await release(task, first)).state).toBe('revoked');
    const [event] = await house.onStore<{ decision: string; payload: object }>(
      `SELECT decision, payload FROM mayfly.audit_events WHERE task_id = $1 AND decision = 'deny'`,
      [task.id.slice(5)],
    );
    expect(event).toMatchObject({ payload: { refusal: 'limit_reached', limit: 'both' } });
    await endAll(task, other);
  });

  test('gets through 64 asks at once on two replicas for neither side', async () => {
    await applyLimits(LIMITS);
    const task = await open();
    const got = await race(64, (n) => [task, n % 4 < 2 ? INVOICES : PAYMENTS]);
    expect(got).toHaveLength(32);
    expect(new Set(got.map(({ entitlement }) => entitlement)).size).toBe(1);
    await endAll(task);
  });
});

describe('at most so many grants', () => {
  test('of a tree: one that is released counts until it is contained', async () => {
    await applyLimits('at_most: [{ name: few, grants: 2, per: tree }]');
    const [task, other] = [await open(), await open()];
    const first = await issue(task, INVOICES);
    await issue(task, PAYMENTS);
    expect(told(await issue(task, INVOICES))).toEqual([403, 'limit_reached', ['The limit few is reached.']]);
    expect((await issue(other, INVOICES)).status).toBe(201);
    await release(task, first);
    expect((await issue(task, INVOICES)).status).toBe(201);
    await endAll(task, other);
  });

  test.each(['workload', 'target'])(
    'of one %s: 64 asks at once of many tasks on two replicas get just so many',
    async (per) => {
      await applyLimits(`at_most: [{ name: five, grants: 5, per: ${per}, of: { entitlements: [${INVOICES}] } }]`);
      const tasks = await Promise.all(Array.from({ length: 8 }, () => open()));
      const taskOf = (n: number) => tasks[n % tasks.length] as TaskBody;
      const got = await race(64, (n) => [taskOf(n), INVOICES]);
      expect(got).toHaveLength(5);
      // What the limit is not about is not counted.
      expect((await issue(taskOf(0), PAYMENTS)).status).toBe(201);
      const other = await open('agent-support');
      const theirs = await issue(other, INVOICES);
      expect(theirs.status).toBe(per === 'workload' ? 201 : 403);
      await house.client().release(got[0]?.id ?? '', { wait: 30 });
      expect(await race(16, (n) => [taskOf(n), INVOICES])).toHaveLength(1);
      await endAll(...tasks, other);
    },
  );

  test('of several limits the fullest counts', async () => {
    await applyLimits(`at_most:
  - { name: wide, grants: 10, per: target }
  - { name: narrow, grants: 1, per: workload, reason: One at a time. }`);
    const task = await open();
    expect((await issue(task, INVOICES)).status).toBe(201);
    expect(told(await issue(await open(), PAYMENTS))).toEqual([403, 'limit_reached', ['One at a time.']]);
    await endAll(task);
  });

  test('a repeated Idempotency-Key ends the first grant, which counts until then', async () => {
    await applyLimits('at_most: [{ name: one, grants: 1, per: workload }]');
    const task = await open();
    const key = { 'idempotency-key': 'k' };
    const first = await issue(task, INVOICES, house.url, key);
    expect(first.status).toBe(201);
    expect(told(await issue(task, INVOICES, house.url, key))[1]).toBe('limit_reached');
    const { id } = grantOf(first);
    await expect.poll(async () => (await house.client().grant(id)).state, { timeout: 60_000 }).toBe('revoked');
    expect((await issue(task, INVOICES, house.url, key)).status).toBe(201);
    await endAll(task);
  });
});
