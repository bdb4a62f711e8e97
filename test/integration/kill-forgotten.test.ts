import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { killsPageBody, type KillView, killView } from '../../src/http/kill-bodies.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const INVOICES = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';
const REASON = { reason: 'its key was seen in a paste' };
const WAIT = { timeout: 60_000, interval: 50 };

let house: House;
let operators: Operators;
beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});
afterEach(async () => {
  for (const { id } of await standing())
    await ask(house.url, 'DELETE', `/v1/kill/${id}`, { token: await operators.token('operator') });
});

const standing = async () => killsPageBody.parse((await operators.get('/v1/kill?standing=true')).body).items;
const confirm = async (role?: 'viewer') =>
  role === undefined
    ? await operators.post('/v1/kill/confirm', REASON)
    : await ask(house.url, 'POST', '/v1/kill/confirm', { token: await operators.token(role), body: REASON });

async function raised(entitlement: string): Promise<KillView> {
  return killView.parse((await operators.post('/v1/kill', { scope: 'entitlement', id: entitlement, ...REASON })).body);
}

async function opened(): Promise<string> {
  const { task } = await house
    .client()
    .openTask(await house.sign({ phase: 'execute', entitlements: [INVOICES, PAYMENTS] }));
  return task.id;
}

async function issue(task: string, entitlement: string): Promise<Reply> {
  return await ask(house.url, 'POST', `/v1/tasks/${task}/grants`, {
    token: await house.token(),
    body: { entitlement },
  });
}

/** The store as a promoted standby that never had heard of the kill, nor of what it ended. */
async function forget(kill: KillView): Promise<void> {
  await house.onStore(`BEGIN; DELETE FROM mayfly.kills WHERE id = '${kill.id.slice(5)}';
    UPDATE mayfly.timeline SET timeline = timeline - 1; COMMIT`);
}

async function told(type: string): Promise<Record<string, unknown>[]> {
  const rows = await house.onStore<{ payload: Record<string, unknown> }>(
    'SELECT payload FROM mayfly.audit_events WHERE type = $1 ORDER BY ts',
    [type],
  );
  return rows.map(({ payload }) => payload);
}

const untilIssued = async (task: string, entitlement: string) =>
  await vi.waitFor(async () => expect((await issue(task, entitlement)).status).toBe(201), WAIT);

test('a kill that the store forgot is raised again by a broker that knew it, and no credential comes between', async () => {
  const task = await opened();
  const kill = await raised(PAYMENTS);
  await forget(kill);
  const asked = await issue(task, PAYMENTS);
  expect(['store_failed_over', 'killed']).toContain(asked.body['code']);
  await vi.waitFor(
    async () => expect(await standing()).toMatchObject([{ id: kill.id, subject: PAYMENTS, ...REASON }]),
    WAIT,
  );
  await untilIssued(task, INVOICES);
  expect((await issue(task, PAYMENTS)).body).toMatchObject({ code: 'killed' });
  expect((await told('kill.raised')).at(-1)).toMatchObject({ kill_id: kill.id, restored: true, by: kill.by });
  expect(await told('kill.confirmed')).toHaveLength(1);
});

test('a broker that lived through a failover confirms by itself that nothing was forgotten', async () => {
  const before = await told('kill.confirmed');
  const task = await opened();
  await house.onStore('UPDATE mayfly.timeline SET timeline = timeline - 1');
  await untilIssued(task, INVOICES);
  expect(await told('kill.confirmed')).toHaveLength(before.length + 1);
});

test('where no broker lived through it, nothing is issued until an operator has confirmed the kills', async () => {
  const task = await opened();
  const { grant } = await house.client().issue(task, { entitlement: INVOICES });
  const confirmed = await told('kill.confirmed');
  await house.broker.stop();
  await house.onStore('UPDATE mayfly.timeline SET timeline = timeline - 1');
  await house.restart();
  await vi.waitFor(async () => {
    const [row] = await house.onStore<{ is: boolean }>(`SELECT mayfly.is_reconciled('ledger-db') AS is`);
    expect(row).toEqual({ is: true });
    expect((await ask(house.url, 'GET', '/metrics')).text).toContain('mayfly_kills_unconfirmed 1');
  }, WAIT);
  const refused = await issue(task, INVOICES);
  expect([refused.status, refused.body['code']]).toEqual([503, 'store_failed_over']);
  const renewed = await ask(house.url, 'POST', `/v1/grants/${grant.id}/renew`, {
    ...{ token: await house.token(), body: { ttl_seconds: 60 } },
  });
  expect([renewed.status, renewed.body['code']]).toEqual([503, 'store_failed_over']);
  expect(await told('kill.confirmed')).toHaveLength(confirmed.length);
  expect((await confirm('viewer')).status).toBe(403);
  expect([(await confirm()).status, (await confirm()).status]).toEqual([200, 200]);
  expect((await told('kill.confirmed')).slice(confirmed.length)).toEqual([{ ...REASON, by: 'dev-operators:olga' }]);
  await untilIssued(task, INVOICES);
});
