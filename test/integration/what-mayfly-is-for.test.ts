import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import type { GrantBody } from '../../src/client/index.ts';
import { Agent, eventOf, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { roleOf } from '../support/reconcile.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const WAIT = { timeout: 60_000, interval: 30 };

let house: House;
let owner: Agent;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  owner = await Agent.make(house);
});
afterAll(() => house?.stop());

const idOf = ({ id }: { readonly id: string }) => id.slice(id.indexOf('_') + 1);
const rolesOf = async (...grants: readonly GrantBody[]) =>
  (await house.onTarget('SELECT FROM pg_roles WHERE rolname = ANY($1)', [grants.map((grant) => roleOf(idOf(grant)))]))
    .length;
const allRoles = async () => (await house.onTarget(`SELECT FROM pg_roles WHERE rolname LIKE 'mfy\\_%'`)).length;
const untilRevoked = async (grant: GrantBody, by: Agent) =>
  await vi.waitFor(async () => expect(await by.client().grant(grant.id)).toMatchObject({ state: 'revoked' }), WAIT);

test('a grant exists only for a verified task', async () => {
  const stranger = await Agent.make(house, 'agent-support');
  const ask = async (task: string, by: Agent) =>
    outcome(await by.call('POST', `/v1/tasks/${task}/grants`, { entitlement: READ }));
  const request = await house.sign({ keyThumbprint: owner.key.thumbprint });
  const elsewhere = await house.sign({ keyThumbprint: stranger.key.thumbprint });
  const open = async (text: string) => outcome(await owner.call('POST', '/v1/tasks', { request: text, issue: [READ] }));
  const before = await allRoles();

  // Nobody entitled has stated it: another's signature under the same words.
  const [header, claims] = request.split('.');
  expect(await open(`${header}.${claims}.${elsewhere.split('.')[2]}`)).toEqual([401, expect.any(String)]);
  // It is stated for another's key.
  expect(await open(elsewhere)).toEqual([401, expect.any(String)]);
  // There is none, it is another's, it is over.
  expect(await ask('task_0198c0de-7a11-7000-8000-0123456789ab', owner)).toEqual([404, 'not_found']);
  const task = await owner.open();
  expect(await ask(task.id, stranger)).toEqual([404, 'not_found']);
  await owner.client().complete(task.id);
  expect(await ask(task.id, owner)).toEqual([409, 'task_ended']);

  expect(await allRoles()).toBe(before);
  expect(await house.onStore('SELECT FROM mayfly.grants')).toEqual([]);
  // And with one it does, for as long as the task lives.
  const verified = await owner.open();
  const { grant } = await owner.client().issue(verified.id, { entitlement: READ });
  expect(await rolesOf(grant)).toBe(1);
  await owner.client().complete(verified.id);
  await untilRevoked(grant, owner);
  await vi.waitFor(async () => expect(await rolesOf(grant)).toBe(0), WAIT);
});

test('staged by phase: each step has what it needs, and loses it when the next one begins', async () => {
  const task = await owner.open({ phase: 'plan', entitlements: [READ, PAY] });
  const move = async (phase: string) =>
    outcome(
      await owner.call('POST', `/v1/tasks/${task.id}/events`, {
        event: await eventOf(house, task.id, { op: 'phase', phase }),
      }),
    );
  const pay = async () => await owner.call('POST', `/v1/tasks/${task.id}/grants`, { entitlement: PAY });
  const { grant: read } = await owner.client().issue(task.id, { entitlement: READ });
  expect(outcome(await pay())).toEqual([403, 'denied_by_policy']);
  expect((await move('execute'))[0]).toBe(200);
  const { grant: paid } = await owner.client().issue(task.id, { entitlement: PAY });
  expect((await move('closing'))[0]).toBe(200);
  await untilRevoked(paid, owner);
  expect(await owner.client().grant(paid.id)).toMatchObject({ ended_by: 'drift' });
  expect(await owner.client().grant(read.id)).toMatchObject({ state: 'active' });
  expect(outcome(await pay())).toEqual([403, 'denied_by_policy']);
  // Never back.
  expect(await move('execute')).toEqual([409, 'phase_passed']);
  await owner.client().complete(task.id);
});

test('multiple agents never share a credential, and none can touch another’s', async () => {
  const agents = await Promise.all(
    Array.from({ length: 12 }, async (_, i) => await Agent.make(house, i % 3 === 0 ? 'agent-support' : 'agent-recon')),
  );
  const held = await Promise.all(
    agents.map(async (agent) => {
      const task = await agent.open();
      // Two of the same entitlement on the same task are two, too.
      const issued = await Promise.all(
        [1, 2].map(async () => await agent.client().issue(task.id, { entitlement: READ })),
      );
      return { agent, task, issued };
    }),
  );
  const credentials = held.flatMap(({ issued }) => issued.map(({ credential }) => credential));
  for (const part of ['username', 'password']) expect(new Set(credentials.map((one) => one[part])).size).toBe(24);
  for (const [i, { issued, task }] of held.entries()) {
    const other = held[(i + 1) % held.length]?.agent;
    const [first] = issued;
    if (other === undefined || first === undefined) throw new Error('there are twelve');
    for (const [method, path] of [
      ['GET', `/v1/grants/${first.grant.id}`],
      ['DELETE', `/v1/grants/${first.grant.id}`],
      ['GET', `/v1/tasks/${task.id}`],
    ] as const)
      expect([path, outcome(await other.call(method, path))]).toEqual([path, [404, 'not_found']]);
    expect(outcome(await other.call('POST', `/v1/grants/${first.grant.id}/renew`, { ttl_seconds: 60 }))).toEqual([
      404,
      'not_found',
    ]);
  }
  // Who gives its own back takes nothing from another.
  const [gone, ...others] = held;
  if (gone === undefined) throw new Error('there are twelve');
  await gone.agent.client().complete(gone.task.id);
  for (const { grant } of gone.issued) await untilRevoked(grant, gone.agent);
  for (const { issued } of others.slice(0, 3))
    for (const { credential } of issued) {
      const session = new pg.Client({ connectionString: String(credential['url']) });
      await session.connect();
      expect((await session.query('SELECT count(*) FROM billing.invoices')).rowCount).toBe(1);
      await session.end();
    }
});
