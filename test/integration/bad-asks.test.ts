import { beforeAll, describe, expect, test, vi } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import type { GrantBody, TaskBody } from '../../src/client/index.ts';
import { Changes } from '../../src/store/changes.ts';
import { Database } from '../../src/store/database.ts';
import { ask, type AskOptions, type Reply } from '../support/ask.ts';
import { forge } from '../support/forge.ts';
import { call, expectRefusal, issue, READ, refused, refuses, type Send, useRefusals } from '../support/refusals.ts';

const NAMED = 'ledger-db/of-tenant';

const ofTenant = (params: string) => `
- name: ${NAMED}
  target: ledger-db
  sensitivity: confidential
  actions: [read]
  max_ttl_seconds: 600
  params: ${params}
  provider: { template: mayfly_t_of_tenant, privileges: [{ schema: billing, tables: [invoices], grant: [SELECT] }], connection_limit: 1 }
`;
const TENANT_AND_ROWS = '{ tenant: { type: string, pattern: "[a-z]{1,8}" }, rows: { type: integer, min: 1, max: 10 } }';

useRefusals({
  files: {
    'entitlements/of-tenant.yaml': ofTenant('{}'),
    'policies/of-tenant.cedar': `
@id("of-tenant")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${NAMED}");
`,
  },
});

let ended: { readonly task: TaskBody; readonly grant: GrantBody };
let foreign: { readonly task: TaskBody; readonly grant: GrantBody };

/** Makes a catalog active that is refused today, as a release did that did not look whether a provider can bind params. */
async function applyAsBefore(files: Readonly<Record<string, string>>): Promise<void> {
  const { house } = refused();
  const fail = (error: unknown) => {
    throw error;
  };
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: fail });
  const changes = new Changes({ url: house.store.runtimeUrl, onError: fail, onCatalog: () => {} });
  await changes.start();
  const catalog = loadCatalog(files, { providers: await loadProviders(['postgres']), allowDev: true });
  await applyCatalog({ db, published: () => changes.publishCatalog() }, catalog, 'test', 'test');
  await changes.close();
  await db.close();
  await vi.waitFor(async () => expect((await ask(house.url, 'GET', '/readyz')).status).toBe(200), { timeout: 60_000 });
}

beforeAll(async () => {
  const { house } = refused();
  await applyAsBefore({ ...house.files, 'entitlements/of-tenant.yaml': ofTenant(TENANT_AND_ROWS) });
  const make = async (workload: string) => {
    const { task } = await house.client(workload).openTask(await house.sign({ workload }));
    return { task, grant: (await house.client(workload).issue(task.id, { entitlement: READ })).grant };
  };
  foreign = await make('agent-support');
  ended = await make('agent-recon');
  const client = house.client();
  await client.complete(ended.task.id, { wait: 30 });
  // What is still to be cleaned would change the store under the tests.
  while ((await client.grant(ended.grant.id, { wait: 30 })).revocation?.state !== 'clean');
});

describe('what is not the caller’s', () => {
  const ofTask = (method: string, tail: string, options: AskOptions = {}): Send =>
    call(method, () => `/v1/tasks/${foreign.task.id}${tail}`, options);
  const ofGrant = (method: string, tail: string, options: AskOptions = {}): Send =>
    call(method, () => `/v1/grants/${foreign.grant.id}${tail}`, options);
  refuses(404, 'not_found', {
    asking: ofTask('POST', '/grants', { body: { entitlement: READ } }),
    'asking with a key': ofTask('POST', '/grants', {
      body: { entitlement: READ },
      headers: { 'idempotency-key': 'k' },
    }),
    'asking for what does not exist': ofTask('POST', '/grants', { body: { entitlement: 'x/y' } }),
    completing: ofTask('POST', '/complete?wait=1'),
    cancelling: ofTask('POST', '/cancel'),
    'waiting for its end': ofTask('GET', '?wait=30'),
    'its timeline': ofTask('GET', '/timeline'),
    renewing: ofGrant('POST', '/renew', { body: { ttl_seconds: 60 } }),
    releasing: ofGrant('DELETE', ''),
    'waiting for a grant': ofGrant('GET', '?wait=30'),
  });
});

describe('entitlements', () => {
  refuses(403, 'not_in_task', {
    'one that exists, but not for this task': issue({ entitlement: 'ledger-db/read-payments' }),
    'one that does not exist': issue({ entitlement: 'ledger-db/nothing' }),
    'one that the task names, but the catalog does not': issue({ entitlement: 'ledger-db/no-such-thing' }),
    'one that is no name': issue({ entitlement: '../../etc/passwd' }),
    'one in capitals': issue({ entitlement: READ.toUpperCase() }),
    'one with something invisible': issue({ entitlement: `${READ}\u200b` }),
    'one called __proto__': issue({ entitlement: '__proto__' }),
  });

  test('those that do not exist and those that are not for this task are refused alike', async () => {
    const [one, other, third] = await Promise.all(
      ['ledger-db/read-payments', 'ledger-db/nothing', 'ledger-db/no-such-thing'].map((entitlement) =>
        issue({ entitlement })(),
      ),
    );
    expect({ ...one?.body, instance: '' }).toEqual({ ...other?.body, instance: '' });
    expect({ ...one?.body, instance: '' }).toEqual({ ...third?.body, instance: '' });
  });

  test('asked for at opening they are refused one by one, and the task is open all the same', async () => {
    const { house, token } = refused();
    const body = { request: await house.sign(), issue: [READ, 'x/y'] };
    const reply = await ask(house.url, 'POST', '/v1/tasks', { token, body });
    expect(reply).toMatchObject({
      status: 201,
      body: {
        task: { state: 'active', grants: [{ entitlement: READ, state: 'active' }] },
        issued: [
          { entitlement: READ, credential: { username: expect.stringMatching(/^mfy_/) } },
          { entitlement: 'x/y', problem: { code: 'not_in_task', status: 403, next: expect.any(String) } },
        ],
      },
    });
    const { revocations } = await house.client().complete((reply.body['task'] as TaskBody).id, { wait: 30 });
    expect(revocations).toHaveLength(1);
    while ((await house.client().grant(revocations[0]?.grant_id ?? '', { wait: 30 })).revocation?.state !== 'clean');
  });
});

describe('a task that has ended', () => {
  const asking = (entitlement: string): Send =>
    call('POST', () => `/v1/tasks/${ended.task.id}/grants`, { body: { entitlement } });
  refuses(409, 'task_ended', {
    'asking for a grant': asking(READ),
    'asking for what it never covered': asking('x/y'),
    'cancelling what is completed': call('POST', () => `/v1/tasks/${ended.task.id}/cancel`),
  });
  refuses(409, 'grant_ended', {
    'renewing its grant': call('POST', () => `/v1/grants/${ended.grant.id}/renew`, { body: { ttl_seconds: 60 } }),
  });

  test('is completed again without harm', async () => {
    const reply = await call('POST', () => `/v1/tasks/${ended.task.id}/complete?wait=5`)();
    expect(reply).toMatchObject({
      status: 200,
      body: { task: { state: 'completed' }, revocations: [{ grant_id: ended.grant.id, state: 'clean' }] },
    });
  });
});

describe('params', () => {
  /** Opens a task with these params and asks; the task is ended whatever comes. */
  async function askWith(params: unknown): Promise<{ reply: Reply; grants: number }> {
    const { house, token } = refused();
    const signed = forge(house.devDir, 'orchestrator', await house.sign(), ({ claims }) => {
      claims['authorization_details'] = [{ type: 'mayfly', entitlements: [NAMED], params }];
    });
    const { task } = await house.client().openTask(signed);
    const path = `/v1/tasks/${task.id}/grants`;
    const reply = await ask(house.url, 'POST', path, { token, body: { entitlement: NAMED } });
    const { revocations } = await house.client().complete(task.id, { wait: 30 });
    return { reply, grants: revocations.length };
  }

  test.each([
    ['are missing', undefined, ['tenant', 'rows']],
    ['are missing in part', { tenant: 'acme' }, ['rows']],
    ['do not fit their pattern', { tenant: "acme' OR 1=1", rows: 1 }, ['tenant']],
    ['fit their pattern only in part', { tenant: 'acme\n', rows: 1 }, ['tenant']],
    ['are of another type', { tenant: 5, rows: '1' }, ['tenant', 'rows']],
    ['are too large', { tenant: 'acme', rows: 11 }, ['rows']],
    ['are a truth instead of a number', { tenant: 'acme', rows: true }, ['rows']],
  ])('that %s are refused, and nothing is minted', async (_what, params, names) => {
    const { reply, grants } = await askWith(params);
    const places = names.map((name) => `$.authorization_details[0].params.${name}`);
    await expectRefusal(reply, 422, 'params_invalid', places);
    expect(grants).toBe(0);
  });

  test('that fit, on a target that can not bind them, are no credential without them', async () => {
    const { reply, grants } = await askWith({ tenant: 'acme', rows: 10, another: 'not ours' });
    await expectRefusal(reply, 503, 'target_refused');
    expect(grants).toBe(1);
    const rows = await refused().house.onStore('SELECT params, ended_by FROM mayfly.grants WHERE entitlement = $1', [
      NAMED,
    ]);
    expect(rows).toEqual([{ params: { tenant: 'acme', rows: 10 }, ended_by: 'mint_failed' }]);
  });
});
