import { generateKeyPairSync } from 'node:crypto';
import { compactDecrypt, decodeProtectedHeader } from 'jose';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentKey, type GrantBody, type TaskBody } from '../../src/client/index.ts';
import { readDeliveryKey } from '../../src/identity/delivery-key.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';
const SEALED = 'ledger-db/read-payments';

let house: House;
let key: AgentKey;
let token: string;
beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  const entitlements = house.files['entitlements/ledger-db.yaml'] ?? '';
  await house.broker.apply({
    ...house.files,
    'entitlements/ledger-db.yaml': entitlements.replace(
      `- name: ${SEALED}`,
      `- name: ${SEALED}\n  sealed_delivery: required`,
    ),
    'policies/sealed.cedar': `@id("read-sealed")
permit (principal is Mayfly::Task, action, resource == Mayfly::Entitlement::"${SEALED}");`,
  });
  key = await AgentKey.make();
  token = await house.token();
});
afterAll(() => house?.stop());

async function call(method: string, path: string, body: unknown, headers: Record<string, string> = {}): Promise<Reply> {
  const dpop = await key.prove(method, `${house.url}${path}`, token);
  return await ask(house.url, method, path, { token, body, headers: { dpop, ...headers } });
}

/** A task for one entitlement. */
async function open(entitlement = READ, deliveryThumbprint?: string): Promise<TaskBody> {
  const named = deliveryThumbprint === undefined ? {} : { deliveryThumbprint };
  const request = await house.sign({ keyThumbprint: key.thumbprint, entitlements: [entitlement], ...named });
  const { status, body } = await call('POST', '/v1/tasks', { request });
  expect(status).toBe(201);
  return body['task'] as TaskBody;
}

const grantsOf = (task: TaskBody) => `/v1/tasks/${task.id}/grants`;

async function canRead(credential: Readonly<Record<string, unknown>>, table = 'invoices'): Promise<boolean> {
  const client = new pg.Client({ connectionString: String(credential['url']) });
  client.on('error', () => {});
  await client.connect();
  try {
    const { rows } = await client.query(`SELECT count(*) FROM billing.${table}`);
    return rows.length === 1;
  } finally {
    await client.end();
  }
}

describe('a sealed credential', () => {
  test('can be read by nobody on the way, and works when its agent has opened it', async () => {
    const task = await open();
    const { status, text, body } = await call('POST', grantsOf(task), { entitlement: READ, delivery: key.delivery });
    expect(status).toBe(201);
    const grant = body['grant'] as GrantBody;
    const credential = await key.open(String(body['credential']));
    expect(text).not.toContain(String(credential['password']));
    expect(text).not.toContain(String(credential['username']));
    expect(decodeProtectedHeader(String(body['credential']))).toMatchObject({
      grant_id: grant.id,
      expires_at: credential['expires_at'],
    });
    expect(await canRead(credential)).toBe(true);
    const events = (await call('GET', `/v1/tasks/${task.id}/timeline`, undefined)).body['items'];
    expect(events).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          type: 'decision.made',
          payload: expect.objectContaining({ sealed_to: key.thumbprint }),
        }),
      ]),
    );
  });

  test('goes to another key that the signed task names for it', async () => {
    const pair = generateKeyPairSync('x25519');
    const jwk = pair.publicKey.export({ format: 'jwk' });
    const task = await open(READ, readDeliveryKey({ ...jwk }).thumbprint);
    const { status, body } = await call('POST', grantsOf(task), { entitlement: READ, delivery: { jwk } });
    expect(status).toBe(201);
    const { plaintext } = await compactDecrypt(String(body['credential']), pair.privateKey);
    expect(await canRead(JSON.parse(new TextDecoder().decode(plaintext)))).toBe(true);
  });

  test('is made at opening too', async () => {
    const request = await house.sign({ keyThumbprint: key.thumbprint, entitlements: [READ] });
    const { status, body } = await call('POST', '/v1/tasks', { request, issue: [READ], delivery: key.delivery });
    expect(status).toBe(201);
    const [issued] = body['issued'] as [{ credential: string }];
    expect(await canRead(await key.open(issued.credential))).toBe(true);
  });

  test('is what the client asks for and opens by itself', async () => {
    const client = house.client('agent-recon', house.url, key);
    const { task } = await client.openTask(await house.sign({ keyThumbprint: key.thumbprint, entitlements: [SEALED] }));
    const { grant, credential } = await client.issue(task.id, { entitlement: SEALED });
    expect(await canRead(credential, 'payments')).toBe(true);
    expect((await client.renew(grant.id, 240)).grant.state).toBe('active');
    await client.complete(task.id, { wait: 30 });
    await expect(canRead(credential, 'payments')).rejects.toThrow(/authentication failed|does not exist/);
  });
});

describe('a key that the signed task does not name', () => {
  test('receives nothing, and nothing is made for it', async () => {
    const task = await open();
    const stranger = await AgentKey.make();
    const refused = await call('POST', grantsOf(task), { entitlement: READ, delivery: stranger.delivery });
    expect(refused).toMatchObject({ status: 403, body: { code: 'delivery_key_wrong' } });
    const request = await house.sign({ keyThumbprint: key.thumbprint, entitlements: [READ] });
    const opened = await call('POST', '/v1/tasks', { request, issue: [READ], delivery: stranger.delivery });
    expect(opened).toMatchObject({ status: 201, body: { issued: [{ problem: { code: 'delivery_key_wrong' } }] } });
    for (const { id } of [task, opened.body['task'] as TaskBody]) {
      expect((await call('GET', `/v1/tasks/${id}`, undefined)).body).toMatchObject({ grants: [] });
    }
  });
});

describe('an entitlement that is handed over sealed only', () => {
  test('is refused without a key, issued with one, and renewed so too', async () => {
    const task = await open(SEALED);
    const bare = await call('POST', grantsOf(task), { entitlement: SEALED });
    expect(bare).toMatchObject({ status: 422, body: { code: 'delivery_required' } });
    const { status, body } = await call('POST', grantsOf(task), { entitlement: SEALED, delivery: key.delivery });
    expect(status).toBe(201);
    const path = `/v1/grants/${(body['grant'] as GrantBody).id}/renew`;
    const renewal = await call('POST', path, { ttl_seconds: 200 });
    expect(renewal).toMatchObject({ status: 422, body: { code: 'delivery_required' } });
    expect((await call('POST', path, { ttl_seconds: 200, delivery: key.delivery })).status).toBe(200);
  });
});

test('a repeated Idempotency-Key is another request with another key to seal to', async () => {
  const task = await open();
  const once = { 'idempotency-key': 'once' };
  const first = await call('POST', grantsOf(task), { entitlement: READ }, once);
  expect(first.status).toBe(201);
  const sealed = await call('POST', grantsOf(task), { entitlement: READ, delivery: key.delivery }, once);
  expect(sealed).toMatchObject({ status: 422, body: { code: 'idempotency_key_reused' } });
});
