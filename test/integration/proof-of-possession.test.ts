import { generateKeyPairSync } from 'node:crypto';
import * as dpop from 'dpop';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { applyCatalog } from '../../src/broker/apply-catalog.ts';
import { loadCatalog } from '../../src/catalog/load.ts';
import { loadProviders } from '../../src/catalog/provider-registry.ts';
import { AgentKey, type GrantBody, type TaskBody } from '../../src/client/index.ts';
import { makeKey, signToken, type TestKey } from '../../src/identity/testing/keys.ts';
import { makeProof, type ProofChange } from '../../src/identity/testing/proofs.ts';
import { Database } from '../../src/store/database.ts';
import { ask, type AskOptions, type Reply } from '../support/ask.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { forge } from '../support/forge.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';

let house: House;
let replica: RunningBroker;
/** Of agent-recon, and the thumbprint that its tasks name. */
const key = makeKey('agent');
const stranger = makeKey('stranger');
let jkt: string;
let token: string;
let task: TaskBody;
let grant: GrantBody;

beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  replica = await house.startReplica();
  jkt = await dpop.calculateThumbprint(await cryptoKeyOf(key));
  token = await house.token();
  const opened = await call('POST', '/v1/tasks', { body: { request: await house.sign({ keyThumbprint: jkt }) } });
  task = opened.body['task'] as TaskBody;
  const issued = await call('POST', `/v1/tasks/${task.id}/grants`, { body: { entitlement: READ } });
  grant = issued.body['grant'] as GrantBody;
});
afterAll(() => house?.stop());

interface CallOptions extends AskOptions {
  /** Null: none. */
  readonly by?: TestKey | null;
  readonly change?: ProofChange;
  readonly url?: string;
}

/** A call as the agent makes it, but for what is said. */
async function call(method: string, path: string, options: CallOptions = {}): Promise<Reply> {
  const { by = key, change, url = house.url, headers, ...more } = options;
  const proof = by === null ? {} : { dpop: proofFor(method, path, by, change, more.token) };
  return await ask(url, method, path, { token, ...more, headers: { ...proof, ...headers } });
}

function proofFor(method: string, path: string, by = key, change?: ProofChange, of = token): string {
  return makeProof(by, { method, url: `${house.url}${path}`, token: of, now: new Date() }, change);
}

async function cryptoKeyOf({ jwk }: TestKey) {
  const { kty, crv, x, y } = jwk as Record<string, string>;
  return await crypto.subtle.importKey(
    'jwk',
    { kty: kty ?? '', crv: crv ?? '', x: x ?? '', y: y ?? '' },
    { name: 'ECDSA', namedCurve: 'P-256' },
    true,
    ['verify'],
  );
}

const outcome = ({ status, body }: Reply) => [status, body['code']];
const taskPath = () => `/v1/tasks/${task.id}`;

describe('an agent with its key', () => {
  test('opens a task, gets a credential, renews it and ends the task, each time with another proof', async () => {
    const own = await AgentKey.make();
    const client = house.client('agent-recon', house.url, own);
    const { task: opened } = await client.openTask(await house.sign({ keyThumbprint: own.thumbprint }));
    const issued = await client.issue(opened.id, { entitlement: READ, ttl_seconds: 60 });
    await client.renew(issued.grant.id, 120);
    expect(await client.grant(issued.grant.id, { wait: 0 })).toMatchObject({ state: 'active' });
    expect((await client.complete(opened.id, { wait: 30 })).revocations).toHaveLength(1);
    const events = await client.timeline(opened.id);
    expect(events.find(({ type }) => type === 'task.opened')?.payload).toMatchObject({
      key_thumbprint: own.thumbprint,
    });
  });

  test('is believed with a proof that `dpop` made, of each kind of key that it makes', async () => {
    for (const alg of ['ES256', 'Ed25519', 'RS256', 'PS256'] as const) {
      const pair = await dpop.generateKeyPair(alg);
      const own = await dpop.calculateThumbprint(pair.publicKey);
      const request = await house.sign({ keyThumbprint: own });
      const proof = await dpop.generateProof(pair, `${house.url}/v1/tasks`, 'POST', undefined, token);
      const reply = await ask(house.url, 'POST', '/v1/tasks', { token, headers: { dpop: proof }, body: { request } });
      expect([alg, reply.status]).toEqual([alg, 201]);
    }
  });

  test('that lost the answer gets the same task again, and nobody else does', async () => {
    const request = await house.sign({ keyThumbprint: jkt });
    const body = { request };
    const first = await call('POST', '/v1/tasks', { body });
    expect(first.status).toBe(201);
    const again = await call('POST', '/v1/tasks', { body });
    expect([again.status, (again.body['task'] as TaskBody).id]).toEqual([200, (first.body['task'] as TaskBody).id]);
    expect(outcome(await call('POST', '/v1/tasks', { body, by: null }))).toEqual([401, 'proof_missing']);
    expect(outcome(await call('POST', '/v1/tasks', { body, by: stranger }))).toEqual([401, 'request_key_wrong']);
  });

  test('may say its address with a query, in capitals or by another replica, but never by a Host header', async () => {
    expect((await call('GET', `${taskPath()}?wait=0`)).status).toBe(200);
    const capitals: ProofChange = ({ claims }) => {
      claims['htu'] = String(claims['htu']).replace('http://', 'HTTP://');
    };
    expect((await call('GET', taskPath(), { change: capitals })).status).toBe(200);
    // The replica listens elsewhere, and is the same broker by its public URL.
    expect((await call('GET', taskPath(), { url: replica.url })).status).toBe(200);
    const there: ProofChange = ({ claims }) => {
      claims['htu'] = `${replica.url}${taskPath()}`;
    };
    const { host } = new URL(replica.url);
    expect(outcome(await call('GET', taskPath(), { url: replica.url, change: there, headers: { host } }))).toEqual([
      401,
      'proof_address_wrong',
    ]);
  });
});

describe('who stole the token and knows the ids', () => {
  const calls: [string, () => string, object | undefined][] = [
    ['GET', taskPath, undefined],
    ['GET', () => `${taskPath()}/timeline`, undefined],
    ['POST', () => `${taskPath()}/grants`, { entitlement: READ }],
    ['POST', () => `${taskPath()}/complete`, {}],
    ['POST', () => `${taskPath()}/cancel`, {}],
    ['GET', () => `/v1/grants/${grant.id}`, undefined],
    ['POST', () => `/v1/grants/${grant.id}/renew`, { ttl_seconds: 60 }],
    ['DELETE', () => `/v1/grants/${grant.id}`, undefined],
  ];

  test.each(calls)('finds nothing there without a key, or with one of its own: %s %o', async (method, path, body) => {
    const unknown = path().replace(/[0-9a-f]{12}(?=$|\/)/, '000000000000');
    const nothing = await call(method, unknown, { body });
    expect(outcome(nothing)).toEqual([404, 'not_found']);
    const bare = (reply: Reply) => ({ ...reply.body, instance: undefined });
    for (const by of [null, stranger]) {
      const reply = await call(method, path(), { body, by });
      expect([reply.status, bare(reply)]).toEqual([404, bare(nothing)]);
    }
    expect((await call('GET', `/v1/grants/${grant.id}`)).body).toMatchObject({ state: 'active' });
  });

  test('finds nothing there under an idempotency key of the owner', async () => {
    const asked = { body: { entitlement: READ }, headers: { 'idempotency-key': 'k-1' } };
    expect((await call('POST', `${taskPath()}/grants`, asked)).status).toBe(201);
    for (const by of [null, stranger])
      expect(outcome(await call('POST', `${taskPath()}/grants`, { ...asked, by }))).toEqual([404, 'not_found']);
  });

  test('does not burn the signed request, neither without a key nor with another', async () => {
    const body = { request: await house.sign({ keyThumbprint: jkt }) };
    expect(outcome(await call('POST', '/v1/tasks', { body, by: null }))).toEqual([401, 'proof_missing']);
    expect(outcome(await call('POST', '/v1/tasks', { body, by: stranger }))).toEqual([401, 'request_key_wrong']);
    expect((await call('POST', '/v1/tasks', { body })).status).toBe(201);
  });

  test('can not use the key of another workload for it', async () => {
    const support = await house.token('agent-support');
    expect(outcome(await call('GET', taskPath(), { token: support }))).toEqual([404, 'not_found']);
  });
});

test('a nonce counts for nothing where none is demanded, and none is given', async () => {
  const reply = await call('GET', taskPath(), { change: ({ claims }) => void (claims['nonce'] = 'made up') });
  expect([reply.status, reply.headers['dpop-nonce']]).toEqual([200, undefined]);
});

test('a request without a key is refused, whoever sends it', async () => {
  const body = { request: await house.sign() };
  for (const by of [key, null])
    expect(outcome(await call('POST', '/v1/tasks', { body, by }))).toEqual([401, 'request_key_missing']);
});

describe('a proof', () => {
  const claims =
    (members: object): ProofChange =>
    (draft) =>
      void Object.assign(draft.claims, members);
  test('that is refused is asked for again by its own scheme', async () => {
    const reply = await call('GET', taskPath(), { change: claims({ htm: 'POST' }) });
    expect(outcome(reply)).toEqual([401, 'proof_method_wrong']);
    expect(reply.headers['www-authenticate']).toBe(
      `DPoP realm="mayfly", resource_metadata="${house.url}/.well-known/oauth-protected-resource", algs="ES256 ES384 EdDSA Ed25519 PS256 RS256", error="invalid_dpop_proof", error_description="proof_method_wrong"`,
    );
  });

  test('counts once: neither again nor at another replica', async () => {
    const dpopHeader = { dpop: proofFor('GET', taskPath()) };
    expect((await call('GET', taskPath(), { by: null, headers: dpopHeader })).status).toBe(200);
    for (const url of [house.url, replica.url])
      expect(outcome(await call('GET', taskPath(), { by: null, headers: dpopHeader, url }))).toEqual([
        401,
        'proof_used',
      ]);
  });

  test('is spent by a call that was refused, too', async () => {
    const dpopHeader = { dpop: proofFor('GET', '/v1/tasks/none') };
    const sent = () => call('GET', '/v1/tasks/none', { by: null, headers: dpopHeader });
    expect(outcome(await sent())).toEqual([404, 'not_found']);
    expect(outcome(await sent())).toEqual([401, 'proof_used']);
  });

  test('is told from others by its key: the same jti of two keys is two proofs', async () => {
    const jti = claims({ jti: 'the same' });
    expect((await call('GET', taskPath(), { change: jti })).status).toBe(200);
    expect((await call('GET', taskPath(), { change: jti, by: stranger })).status).toBe(404);
    expect(outcome(await call('GET', taskPath(), { change: jti }))).toEqual([401, 'proof_used']);
  });

  test('that comes twenty times at once to two replicas counts once', async () => {
    for (let round = 0; round < 5; round++) {
      const dpopHeader = { dpop: proofFor('GET', taskPath()) };
      const replies = await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          call('GET', taskPath(), { by: null, headers: dpopHeader, url: n % 2 === 0 ? house.url : replica.url }),
        ),
      );
      const codes = replies.map(({ status }) => status).sort((a, b) => a - b);
      expect(codes).toEqual([200, ...Array.from({ length: 19 }, () => 401)]);
    }
  });

  test('still counts once where the catalog changed under its call', async () => {
    const body = { request: await house.sign({ keyThumbprint: jkt }) };
    // Nobody hears of it: the call finds out at the store, and begins again from its proofs.
    const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
    const files = { ...house.files, 'purposes.yaml': `${house.files['purposes.yaml'] ?? ''}\n# another revision\n` };
    const catalog = loadCatalog(files, { providers: await loadProviders(['postgres']), allowDev: true });
    await applyCatalog({ db, published: async () => {} }, catalog, 'another', 'test');
    await db.close();
    expect((await call('POST', '/v1/tasks', { body })).status).toBe(201);
  });
});

describe('a token that is bound to a key itself', () => {
  const bound = async (thumbprint = jkt) =>
    (
      await house.issuer.signWorkloadToken({
        ...{ subject: 'agent-recon', audience: house.url, ttl_seconds: 900, key_thumbprint: thumbprint },
      })
    ).token;
  const asBound = (text: string) => ({ authorization: `DPoP ${text}` });

  test('comes by the scheme DPoP with a proof by that key', async () => {
    const own = await bound();
    expect((await call('GET', taskPath(), { token: own, headers: asBound(own) })).status).toBe(200);
    expect(outcome(await call('GET', taskPath(), { token: own, headers: asBound(own), by: null }))).toEqual([
      401,
      'proof_missing',
    ]);
  });

  test('is refused as a bearer token, with and without a proof', async () => {
    const own = await bound();
    for (const by of [key, null]) {
      const reply = await call('GET', taskPath(), { token: own, by });
      expect(outcome(reply)).toEqual([401, 'workload_token_bound']);
      expect(reply.headers['www-authenticate']).toMatch(/^DPoP .*error="invalid_token"/);
    }
  });

  test('is refused with a proof by another key', async () => {
    const own = await bound();
    const reply = await call('GET', taskPath(), { token: own, headers: asBound(own), by: stranger });
    expect(outcome(reply)).toEqual([401, 'proof_key_wrong']);
  });

  test('is told from one that is not', async () => {
    expect(outcome(await call('GET', taskPath(), { headers: asBound(token) }))).toEqual([
      401,
      'workload_token_unbound',
    ]);
  });

  test('is what the client sends by itself where its token is one', async () => {
    const own = await AgentKey.make();
    const client = house.client('agent-recon', house.url, own, async () => await bound(own.thumbprint));
    const { task: opened } = await client.openTask(await house.sign({ keyThumbprint: own.thumbprint }));
    expect((await client.task(opened.id)).state).toBe('active');
  });

  test('of an operator is held to the same', async () => {
    const signed = await house.issuer.signOperatorToken({ subject: 'olga', roles: ['viewer'], audience: house.url });
    const own = forge(house.devDir, 'operators', signed.token, ({ claims }) => void (claims['cnf'] = { jkt }));
    expect((await call('GET', taskPath(), { token: own, headers: asBound(own) })).status).toBe(200);
    expect(outcome(await call('GET', taskPath(), { token: own, by: null }))).toEqual([401, 'workload_token_bound']);
    expect((await call('GET', taskPath(), { token: signed.token, by: null })).status).toBe(200);
  });
});

test('a proof is forgotten when no replica takes it any more', async () => {
  const count = async () => (await house.onStore('SELECT 1 FROM mayfly.dpop_proofs')).length;
  await call('GET', taskPath());
  expect(await count()).toBeGreaterThan(0);
  await house.onStore(`UPDATE mayfly.dpop_proofs SET forget_at = clock_timestamp()`);
  await expect.poll(count, { timeout: 60_000 }).toBe(0);
});

test('what signs a proof is no identity: the token of a key that nobody trusts', async () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const forged = signToken({ ...key, privateKey }, { iss: `${house.url}/x`, aud: house.url, sub: 'agent-recon' });
  expect(outcome(await call('GET', taskPath(), { token: forged }))).toEqual([401, 'workload_token_issuer_unknown']);
});
