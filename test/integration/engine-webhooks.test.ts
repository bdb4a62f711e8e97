import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { targetEvent } from '../../src/revocation/evidence.ts';
import { Webhooks, type WebhooksOptions } from '../../src/revocation/webhooks.ts';
import { Database } from '../../src/store/database.ts';
import { type EngineHouse, startEngineHouse } from '../support/engine.ts';

let house: EngineHouse;
let receiver: Server;
let url: string;
/** What came, and when. And what is answered. */
let received: { readonly path: string; readonly id: string; readonly type: string; readonly at: number }[];
let answer: number | 'never';
beforeAll(async () => {
  house = await startEngineHouse();
  receiver = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      const header = (name: string) => String(request.headers[name]);
      const [id, type] = [header('webhook-id'), header('content-type')];
      received.push({ path: request.url ?? '', id, type, at: performance.now() });
      if (answer !== 'never') response.writeHead(answer, answer === 307 ? { location: '/other' } : {}).end('said');
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}/hook`;
});
afterAll(async () => {
  receiver?.closeAllConnections();
  receiver?.close();
  await house?.stop();
});

let hooks: Webhooks;
let outcomes: string[];
beforeEach(async () => {
  [received, outcomes, answer] = [[], [], 204];
  house.logs.splice(0);
  await house.onStore('DELETE FROM mayfly.notices');
});
afterEach(async () => {
  vi.useRealTimers();
  await hooks.stop();
});

const quickly = { timeout: 60_000, interval: 5 };
const secret = new Secret(`whsec_${Buffer.alloc(24, 7).toString('base64')}`);

function start(options: Partial<WebhooksOptions> = {}): Webhooks {
  hooks = new Webhooks({
    ...{ db: house.db, endpoint: { url, secret }, random: () => 0 },
    observer: { notified: (outcome) => outcomes.push(outcome) },
    log: house.deps.log,
    ...options,
  });
  hooks.start();
  return hooks;
}

/** Events that are news. */
async function happen(count: number): Promise<void> {
  await house.db.transaction({}, async (tx) => {
    for (let n = 0; n < count; n++)
      tx.record(targetEvent('target.breaker', house.deps, `target-${n}`, { state: 'open' }));
  });
}

async function waiting(): Promise<{ event_id: string; attempts: number; seconds: number }[]> {
  return await house.onStore(
    `SELECT event_id, attempts, extract(epoch FROM try_at - clock_timestamp())::float8 AS seconds FROM mayfly.notices`,
  );
}

test('each notice is told of once, signed, and let go', async () => {
  await happen(2);
  start();
  await vi.waitFor(() => expect(outcomes).toEqual(['taken', 'taken']), quickly);
  await vi.waitFor(async () => expect(await waiting()).toEqual([]), quickly);
  expect(received.map(({ path, type }) => [path, type])).toEqual([
    ['/hook', 'application/json'],
    ['/hook', 'application/json'],
  ]);
  expect(new Set(received.map(({ id }) => id)).size).toBe(2);
  expect(house.logs).toEqual([]);
});

test.each([
  [500, 'HTTP 500'],
  [307, 'HTTP 307'],
])(
  'a receiver that answers %i has not taken it: it is told again later, and nobody else is',
  async (status, failure) => {
    answer = status;
    await happen(1);
    start();
    const [notice] = await vi.waitFor(async () => {
      const left = await waiting();
      expect(left[0]?.attempts).toBeGreaterThan(0);
      expect(left[0]?.seconds).toBeLessThan(1);
      return left;
    }, quickly);
    answer = 204;
    await vi.waitFor(() => expect(outcomes).toContain('taken'), quickly);
    // On a slow machine it was told of more than once by then.
    expect(new Set(outcomes.slice(0, -1))).toEqual(new Set(['failed']));
    expect(outcomes.at(-1)).toBe('taken');
    expect(house.logs.slice(0, 1)).toEqual([
      {
        event: { event_id: notice?.event_id, type: 'target.breaker', attempts: 1, failure },
        message: 'a webhook was not taken',
      },
    ]);
    expect(new Set(received.map(({ path }) => path))).toEqual(new Set(['/hook']));
    expect(new Set(received.map(({ id }) => id)).size).toBe(1);
  },
);

test('a receiver that can not be reached has not taken it', async () => {
  await happen(1);
  start({ endpoint: { url: 'http://127.0.0.1:1/', secret } });
  await vi.waitFor(() => expect(outcomes).toContain('failed'), quickly);
  expect(house.logs[0]?.event).toMatchObject({ failure: 'TypeError' });
});

test('ten are told of at a time, and a second later the next', async () => {
  await happen(11);
  start();
  await vi.waitFor(() => expect(outcomes).toHaveLength(11), quickly);
  const [tenth, last] = received.slice(-2).map(({ at }) => at);
  expect((last ?? 0) - (tenth ?? 0)).toBeGreaterThan(900);
});

test('what nobody took within a day is let go, and counted', async () => {
  await happen(2);
  await house.onStore(`UPDATE mayfly.notices SET created_at = clock_timestamp() - interval '86401 seconds'`);
  await happen(1);
  start();
  await vi.waitFor(() => expect(outcomes.toSorted()).toEqual(['dropped', 'dropped', 'taken']), quickly);
  // That is looked for once a minute.
  await happen(1);
  await house.onStore(`UPDATE mayfly.notices SET created_at = clock_timestamp() - interval '86401 seconds'`);
  await vi.waitFor(() => expect(outcomes.filter((outcome) => outcome === 'taken')).toHaveLength(2), quickly);
});

test('without anybody to tell, what is old is let go without a word, and the rest waits', async () => {
  await happen(1);
  await house.onStore(`UPDATE mayfly.notices SET created_at = clock_timestamp() - interval '2 days'`);
  await happen(1);
  start({ endpoint: undefined });
  await vi.waitFor(async () => expect(await waiting()).toHaveLength(1), quickly);
  await hooks.stop();
  expect(outcomes).toEqual([]);
  expect(await waiting()).toMatchObject([{ attempts: 0 }]);
});

test('what is on its way when it is stopped is cut off, and waits for another', async () => {
  answer = 'never';
  await happen(1);
  start();
  await vi.waitFor(() => expect(received).toHaveLength(1), quickly);
  await hooks.stop();
  expect(outcomes).toEqual(['failed']);
  expect(await waiting()).toMatchObject([{ attempts: 1 }]);
  expect(house.logs[0]?.event).toMatchObject({ failure: 'AbortError' });
});

test('a round that failed is followed by another, until it is stopped', async () => {
  const away = new Database({ url: new Secret('postgres://x@127.0.0.1:1/x'), connections: 1, onError: () => {} });
  start({ db: away });
  await vi.waitFor(() => expect(house.logs.length).toBeGreaterThan(1), quickly);
  expect(house.logs[0]?.event).toMatchObject({ error: { code: 'store_unavailable' } });
  await hooks.stop();
  const told = house.logs.length;
  const later = performance.now() + 1_100;
  await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(later), quickly);
  expect(house.logs).toHaveLength(told);
  await away.close();
});
