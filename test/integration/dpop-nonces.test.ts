import * as dpop from 'dpop';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AgentKey, MayflyClient, type TaskBody } from '../../src/client/index.ts';
import { makeKey } from '../../src/identity/testing/keys.ts';
import { makeProof } from '../../src/identity/testing/proofs.ts';
import { ask, type AskOptions, type Reply } from '../support/ask.ts';
import type { RunningBroker } from '../support/broker-process.ts';
import { type House, startHouse } from '../support/house.ts';

const READ = 'ledger-db/read-invoices';
const challenge = () =>
  `DPoP realm="mayfly", resource_metadata="${house.url}/.well-known/oauth-protected-resource", algs="ES256 ES384 EdDSA Ed25519 PS256 RS256", error="use_dpop_nonce", error_description="Send the nonce in DPoP-Nonce."`;

let house: House;
let replica: RunningBroker;
const key = makeKey('agent');
let token: string;
let task: TaskBody;

beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required', env: { MAYFLY_DPOP_NONCE: 'required' } });
  replica = await house.startReplica();
  token = await house.token();
  const { thumbprint } = await AgentKey.from(key.privateKey.export({ format: 'jwk' }));
  const request = await house.sign({ keyThumbprint: thumbprint });
  const opened = await call('POST', '/v1/tasks', { body: { request }, nonce: await freshNonce() });
  task = opened.body['task'] as TaskBody;
});
afterAll(() => house?.stop());

interface CallOptions extends AskOptions {
  readonly nonce?: unknown;
  readonly url?: string;
}

/** A call of the agent, with a new proof that carries what is said. */
async function call(method: string, path: string, options: CallOptions = {}): Promise<Reply> {
  const { nonce, url = house.url, headers, ...more } = options;
  const proven = { method, url: `${house.url}${path}`, token, now: new Date() };
  const proof = makeProof(key, proven, ({ claims }) => void (claims['nonce'] = nonce));
  return await ask(url, method, path, { token, ...more, headers: { dpop: proof, ...headers } });
}

const nonceOf = (reply: Reply) => reply.headers['dpop-nonce'];
const taskPath = () => `/v1/tasks/${task.id}`;

async function freshNonce(url = house.url): Promise<string> {
  return String(nonceOf(await call('GET', '/v1/tasks/none', { url })));
}

describe('a proof', () => {
  test.each<[string, unknown]>([
    ['without a nonce', undefined],
    ['with an empty one', ''],
    ['with one that nobody gave', 'A'.repeat(43)],
    ['with one that is no text', 7],
    ['with one in a list', ['n']],
  ])('%s is answered with a challenge and the nonce to use', async (_what, nonce) => {
    const reply = await call('GET', taskPath(), { nonce });
    expect([reply.status, reply.body['code']]).toEqual([401, 'use_dpop_nonce']);
    expect(reply.headers['www-authenticate']).toBe(challenge());
    expect(nonceOf(reply)).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect((await call('GET', taskPath(), { nonce: nonceOf(reply) })).status).toBe(200);
  });

  test('with the nonce counts, any number of times, and every answer to it carries the one to use', async () => {
    const nonce = await freshNonce();
    const replies = [
      await call('GET', taskPath(), { nonce }),
      await call('POST', `${taskPath()}/grants`, { nonce, body: { entitlement: READ } }),
      await call('GET', `${taskPath().slice(0, -4)}0000`, { nonce }),
      await call('POST', '/v1/tasks', { nonce, body: { request: 'not.a.request' } }),
    ];
    expect(replies.map(({ status }) => status)).toEqual([200, 201, 404, 400]);
    expect(replies.map(nonceOf)).toEqual(Array(4).fill(expect.stringMatching(/^[A-Za-z0-9_-]{43}$/)));
  });

  test('that does not hold is told no nonce, and neither is a call without one', async () => {
    const forged = await call('GET', taskPath(), { headers: { dpop: 'a.b.c' } });
    expect([forged.body['code'], nonceOf(forged)]).toEqual(['proof_malformed', undefined]);
    const bare = await ask(house.url, 'GET', taskPath(), { token });
    expect([bare.status, nonceOf(bare)]).toEqual([404, undefined]);
  });

  test('still counts once', async () => {
    const proven = { method: 'GET', url: `${house.url}${taskPath()}`, token, now: new Date() };
    const nonce = await freshNonce();
    const headers = { dpop: makeProof(key, proven, ({ claims }) => void (claims['nonce'] = nonce)) };
    const twice = [
      await ask(house.url, 'GET', taskPath(), { token, headers }),
      await ask(replica.url, 'GET', taskPath(), { token, headers }),
    ];
    expect(twice.map(({ body }) => body['code'])).toEqual([undefined, 'proof_used']);
  });

  test('with an old nonce is refused; one of two minutes ago is taken, though this replica never saw it', async () => {
    const begin = (ago: number, nonce: string) =>
      house.onStore(
        `INSERT INTO mayfly.dpop_nonces VALUES (floor(extract(epoch FROM clock_timestamp()) / 60) - $1, $2)
          ON CONFLICT (minute) DO UPDATE SET nonce = EXCLUDED.nonce`,
        [ago, nonce],
      );
    const codeFor = async (nonce: string) => (await call('GET', taskPath(), { nonce })).body['code'];
    // Three minutes back, so that it is still old after the next minute began.
    await begin(3, 'too-old');
    await begin(1, 'not-too-old');
    // The look at the store for what is not known comes once a second.
    await expect.poll(() => codeFor('not-too-old'), { timeout: 60_000 }).toBeUndefined();
    expect(await codeFor('too-old')).toBe('use_dpop_nonce');
  });
});

describe('two replicas', () => {
  test('give and take the same nonces, also one that just came back', async () => {
    const given = await freshNonce();
    expect((await call('GET', taskPath(), { nonce: given, url: replica.url })).status).toBe(200);
    await house.broker.stop();
    const meanwhile = await freshNonce(replica.url);
    await house.restart();
    for (const nonce of [given, meanwhile]) expect((await call('GET', taskPath(), { nonce })).status).toBe(200);
    for (const url of [house.url, replica.url])
      expect((await call('GET', taskPath(), { nonce: await freshNonce(), url })).status).toBe(200);
  });
});

describe('a client of ours', () => {
  /** What it sent, and the status of each answer. */
  function counting(agentKey: AgentKey) {
    const statuses: number[] = [];
    const client = new MayflyClient({
      url: house.url,
      token: () => token,
      key: agentKey,
      fetch: async (input, init) => {
        const response = await fetch(input, init);
        statuses.push(response.status);
        return response;
      },
    });
    return { client, statuses };
  }

  test('asks once more with the nonce it was given, and keeps it for what comes', async () => {
    const own = await AgentKey.make();
    const { client, statuses } = counting(own);
    const { task: opened } = await client.openTask(await house.sign({ keyThumbprint: own.thumbprint }));
    await client.issue(opened.id, { entitlement: READ });
    await client.complete(opened.id, { wait: 30 });
    expect(statuses).toEqual([401, 201, 201, 200]);
  });

  test('asks no third time', async () => {
    const sent: string[] = [];
    const client = new MayflyClient({
      url: house.url,
      token: () => token,
      key: await AgentKey.make(),
      fetch: async (_input, init) => {
        sent.push(new Headers(init?.headers).get('dpop') ?? '');
        const headers = { 'dpop-nonce': `n-${sent.length}`, 'content-type': 'application/problem+json' };
        return new Response(JSON.stringify({ code: 'use_dpop_nonce' }), { status: 401, headers });
      },
    });
    await expect(client.task('task_x')).rejects.toMatchObject({ code: 'use_dpop_nonce', status: 401 });
    const nonces = sent.map(
      (proof) => JSON.parse(Buffer.from(proof.split('.')[1] ?? '', 'base64url').toString())['nonce'],
    );
    expect(nonces).toEqual([undefined, 'n-1']);
  });
});

test('a proof that `dpop` made carries it too', async () => {
  const pair = await dpop.generateKeyPair('ES256');
  const request = await house.sign({ keyThumbprint: await dpop.calculateThumbprint(pair.publicKey) });
  const send = async (nonce?: string) => {
    const proof = await dpop.generateProof(pair, `${house.url}/v1/tasks`, 'POST', nonce, token);
    return await ask(house.url, 'POST', '/v1/tasks', { token, headers: { dpop: proof }, body: { request } });
  };
  const refused = await send();
  expect(refused.status).toBe(401);
  expect((await send(nonceOf(refused) as string)).status).toBe(201);
});
