import { createHmac, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { type House, startHouse } from '../support/house.ts';
import { grantsIn, type Operators, operatorsOf } from '../support/operators.ts';

const KEY = randomBytes(32);
const REASON = { reason: 'the receiver listens' };

interface Received {
  readonly path: string;
  readonly id: string;
  readonly signed: boolean;
  readonly body: { readonly type: string; readonly data: Readonly<Record<string, unknown>> };
}

let receiver: Server;
let received: Received[] = [];
/** What the receiver answers to a message. */
let answer: (message: Received) => number;
let house: House;
let operators: Operators;

beforeAll(async () => {
  receiver = createServer((request, response) => {
    const header = (name: string) => String(request.headers[name]);
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const signature = createHmac('sha256', KEY)
        .update(`${header('webhook-id')}.${header('webhook-timestamp')}.${text}`)
        .digest('base64');
      const message: Received = {
        path: request.url ?? '',
        id: header('webhook-id'),
        signed: header('webhook-signature') === `v1,${signature}`,
        body: JSON.parse(text === '' ? '{}' : text),
      };
      received.push(message);
      const status = answer(message);
      response.writeHead(status, status === 307 ? { location: '/elsewhere' } : {}).end('whatever it says');
    });
  });
  receiver.listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  const { port } = receiver.address() as AddressInfo;
  house = await startHouse({
    env: {
      MAYFLY_OVERDUE_SECONDS: '60',
      MAYFLY_WEBHOOK_URL: `http://127.0.0.1:${port}/hook?of=mayfly`,
      MAYFLY_WEBHOOK_SECRET: `whsec_${KEY.toString('base64')}`,
    },
  });
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
  receiver?.closeAllConnections();
  receiver?.close();
});
beforeEach(() => {
  received = [];
  answer = () => 204;
});

async function untilReceived(type: string, times = 1): Promise<Received[]> {
  return await vi.waitFor(
    () => {
      const found = received.filter(({ body }) => body.type === type);
      expect(found.length).toBeGreaterThanOrEqual(times);
      return found;
    },
    { timeout: 60_000, interval: 50 },
  );
}

async function untilNoneWaits(): Promise<void> {
  await vi.waitFor(async () => expect(await house.onStore('SELECT FROM mayfly.notices')).toEqual([]), {
    timeout: 60_000,
    interval: 50,
  });
}

test('a webhook is told, signed, of a pause, of what is overdue, of what is contained late and of the resume', async () => {
  const { task, grants } = await grantsIn(house, 1);
  await operators.post('/v1/targets/ledger-db/pause', REASON);
  await house.client().cancel(task.id);
  const id = grants[0]?.revocation.id ?? '';
  await operators.until(id, 'due');
  await house.onStore(`UPDATE mayfly.revocations SET due_at = due_at - interval '1 hour' WHERE state = 'due'`);
  const [overdue] = await untilReceived('revocation.overdue');
  expect((await operators.story(id)).revocation.overdue_since).toBeDefined();
  expect(overdue?.body.data).toMatchObject({ target: 'ledger-db', grant_id: grants[0]?.id, task_id: task.id });
  expect((await operators.queue('?overdue=true')).items.map((item) => item.id)).toEqual([id]);
  await operators.post('/v1/targets/ledger-db/resume');
  const [late] = await untilReceived('revocation.contained_late');
  expect(late?.body.data).toMatchObject({ grant_id: grants[0]?.id, late_seconds: expect.any(Number) });
  expect(late?.body.data).not.toHaveProperty('evidence');
  await untilNoneWaits();
  expect(received.map(({ body }) => body.type).sort()).toEqual([
    'revocation.contained_late',
    'revocation.overdue',
    'target.paused',
    'target.resumed',
  ]);
  expect(received.every(({ signed, path }) => signed && path === '/hook?of=mayfly')).toBe(true);
});

test('what is contained in time is told to nobody', async () => {
  const { task, grants } = await grantsIn(house, 1);
  await house.client().cancel(task.id);
  await operators.until(grants[0]?.revocation.id ?? '', 'clean');
  await untilNoneWaits();
  expect(received).toEqual([]);
});

test('one that was not taken is sent again as the same message, and a redirect is not followed', async () => {
  const statuses = [500, 307, 200];
  answer = () => statuses[received.length - 1] ?? 200;
  const { task, grants } = await grantsIn(house, 1);
  await operators.post('/v1/targets/ledger-db/pause', REASON);
  const paused = await untilReceived('target.paused', 3);
  await untilNoneWaits();
  expect(new Set(paused.map(({ id }) => id)).size).toBe(1);
  expect(paused.every(({ signed }) => signed)).toBe(true);
  expect(received.map(({ path }) => path)).not.toContain('/elsewhere');

  await house.client().cancel(task.id);
  const id = grants[0]?.revocation.id ?? '';
  await operators.until(id, 'due');
  await operators.post(`/v1/revocations/${id}/write-off`, { reason: 'Der Server ist verschrottet – 完了' });
  const [off] = await untilReceived('revocation.written_off');
  expect(off?.body.data).toMatchObject({ reason: 'Der Server ist verschrottet – 完了', by: 'dev-operators:olga' });
  await operators.post('/v1/targets/ledger-db/resume');
});

test('a receiver that takes nothing and answers nothing holds no revocation up', async () => {
  const held: (() => void)[] = [];
  receiver.prependListener('request', (_request, response) => {
    response.writeHead = () => response;
    response.end = () => response;
    held.push(() => response.destroy());
  });
  const { task, grants } = await grantsIn(house, 3);
  await operators.post('/v1/targets/ledger-db/pause', REASON);
  await vi.waitFor(() => expect(held.length).toBeGreaterThan(0), { timeout: 60_000 });
  await operators.post('/v1/targets/ledger-db/resume');
  await house.client().cancel(task.id, { wait: 30 });
  for (const { revocation } of grants) await operators.until(revocation.id, 'clean');
  // All the while it was not told.
  expect((await house.onStore('SELECT FROM mayfly.notices')).length).toBeGreaterThan(0);
  receiver.removeAllListeners('request');
  for (const letGo of held) letGo();
});
