import { afterEach, describe, expect, test } from 'vitest';
import type { UseCases } from './deps.ts';
import { containedGrant, GRANT_ID, sampleTask, TASK_ID } from './testing/samples.ts';
import { type Reply, startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function start(
  config: NonNullable<TestAppOptions['config']>,
  useCases: TestAppOptions['useCases'] = {},
): Promise<TestApp> {
  const view = { task: sampleTask(), grants: [], children: [] };
  const app = await startTestApp({
    config,
    useCases: {
      readTask: async () => view,
      viewTask: async () => view,
      endTask: async () => ({ task: sampleTask(), grants: [] }),
      releaseGrant: async () => containedGrant(),
      ...useCases,
    },
  });
  running.push(app);
  return app;
}

const TASK = `/v1/tasks/task_${TASK_ID}`;
const statuses = (replies: readonly Reply[]) => replies.map(({ status }) => status);

async function asked(app: TestApp, times: number, headers: Record<string, string> = {}, token?: string | false) {
  const replies: Reply[] = [];
  for (let time = 0; time < times; time++)
    replies.push(await app.ask('GET', TASK, { headers, ...(token === undefined ? {} : { token }) }));
  return replies;
}

function expectRefused(reply: Reply | undefined, code: string): void {
  expect([reply?.status, reply?.body]).toMatchObject([429, { code, type: `/problems/${code}` }]);
  const seconds = Number(reply?.headers['retry-after']);
  expect(Number.isInteger(seconds) && seconds >= 1 && seconds <= 60).toBe(true);
}

describe('one address', () => {
  test('may ask so often in a minute, whoever it says it is, and is then told when to come back', async () => {
    let believed = 0;
    const app = await start(
      { calls_per_address: 3 },
      {
        authenticate: async () => {
          believed += 1;
          throw new Error('nobody is believed here');
        },
      },
    );
    const replies = [...(await asked(app, 2)), ...(await asked(app, 2, {}, false))];
    expect(statuses(replies)).toEqual([500, 500, 500, 429]);
    expectRefused(replies[3], 'too_many_calls');
    // A flood costs no verification.
    expect(believed).toBe(3);
  });

  test('is the caller’s own behind a proxy; of IPv6 the whole network counts as one', async () => {
    const app = await start({ calls_per_address: 2, trusted_proxies: ['127.0.0.1/32', '::1/128'] });
    const from = (address: string) => asked(app, 1, { 'x-forwarded-for': address });
    const same = ['2001:db8:7:1::1', '2001:DB8:7:1:ffff::2', '2001:db8:7:1:0:0:0:3'];
    const others = ['2001:db8:7:2::1', '2001:db8::7', '198.51.100.7', '198.51.100.8', '::1:2:3:4:5'];
    const said: number[] = [];
    for (const address of [...same, ...others]) said.push(...statuses(await from(address)));
    expect(said).toEqual([200, 200, 429, 200, 200, 200, 200, 200]);
    const mapped = ['198.51.100.9', '::ffff:198.51.100.9', '198.51.100.9'];
    const again: number[] = [];
    for (const address of mapped) again.push(...statuses(await from(address)));
    expect(again).toEqual([200, 200, 429]);
  });

  test('may not begin to sign in without end', async () => {
    const app = await start({ calls_per_address: 2 });
    const replies = [];
    for (const path of ['/login', '/login/callback', '/login'])
      replies.push(await app.ask('GET', path, { token: false }));
    expect(statuses(replies).slice(2)).toEqual([429]);
    expect((await app.ask('POST', '/logout', { token: false })).status).toBe(403);
  });

  test('always reaches the pages that need no caller', async () => {
    const app = await start({ calls_per_address: 1 });
    await asked(app, 2);
    for (const path of ['/healthz', '/readyz', '/problems/too_many_calls', '/openapi.json'])
      expect([path, (await app.ask('GET', path, { token: false })).status]).toEqual([path, 200]);
  });
});

test('one caller may ask so often in a minute, and others are not counted with it', async () => {
  const app = await start({ calls_per_caller: 2 });
  const replies = await asked(app, 3);
  expect(statuses(replies)).toEqual([200, 200, 429]);
  expectRefused(replies[2], 'too_many_calls');
  expect(statuses(await asked(app, 3, {}, 'stranger'))).toEqual([200, 200, 429]);
  expect(statuses(await asked(app, 3, {}, 'operator'))).toEqual([200, 200, 429]);
});

test('a long timeline counts as many calls, before it is read', async () => {
  let read = 0;
  const readTimeline: UseCases['readTimeline'] = async (_deps, _caller, _id, admit) => {
    await admit(0.5);
    read += 1;
    return [];
  };
  const app = await start({ calls_per_caller: 100 }, { readTimeline });
  const replies = [];
  for (let time = 0; time < 17; time++) replies.push(await app.ask('GET', `${TASK}/timeline`));
  // Each is one call and five more.
  expect(statuses(replies)).toEqual([...Array<number>(16).fill(200), 429]);
  expectRefused(replies[16], 'too_many_calls');
  expect(read).toBe(16);
});

test('what takes access back is never refused for what was asked before', async () => {
  const app = await start({ calls_per_address: 1, calls_per_caller: 1, polls_per_caller: 1 });
  expect(statuses(await asked(app, 2))).toEqual([200, 429]);
  const unknown = 'rev_0198c0de-7a11-7000-8000-0123456789ab';
  const ends = [
    ['POST', `${TASK}/complete`],
    ['POST', `${TASK}/cancel`],
    ['DELETE', `/v1/grants/grt_${GRANT_ID}`],
    ['POST', `/v1/revocations/${unknown}/retry`],
    ['POST', '/v1/targets/ledger-db/resume'],
  ] as const;
  for (const [method, path] of ends) {
    const token = path.startsWith('/v1/tasks') || method === 'DELETE' ? 'agent' : 'operator';
    for (let time = 0; time < 3; time++) {
      const { status } = await app.ask(method, path, { token });
      expect([method, path, status === 429]).toEqual([method, path, false]);
    }
  }
});

function gate() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

test('a source may send so many signals in a minute, each of a batch counts, and nothing else is counted', async () => {
  const taken = { key: 'x', outcome: 'taken' as const, receivedAt: new Date() };
  const app = await start(
    { signals_per_source: 3, calls_per_caller: 1, calls_per_address: 1 },
    { takeSignals: async (_deps, _caller, said) => said.map(() => taken) },
  );
  const beat = { kind: 'heartbeat', id: 'x', occurred_at: '2026-01-05T10:00:00Z' };
  const send = (body: object) => app.ask('POST', '/v1/signals', { body });
  const sent = [await send(beat), await send({ kind: 'batch', signals: [beat, beat] })];
  expect(statuses(sent)).toEqual([200, 200]);
  expectRefused(await send(beat), 'too_many_calls');
});

describe('long polls', () => {
  /** A poll that lasts until it is let go. */
  function held() {
    const [release, begun] = [gate(), gate()];
    const waits: number[] = [];
    return {
      release: release.open,
      begun: begun.opened,
      waits,
      useCases: {
        waitUntil: async (_deps: unknown, _id: unknown, _seconds: number, _context: unknown, read: () => unknown) => {
          begun.open();
          await release.opened;
          return read();
        },
        waitContained: async (_deps: unknown, _id: unknown, seconds: number) => {
          waits.push(seconds);
          return [];
        },
      } as Partial<NonNullable<TestAppOptions['useCases']>>,
    };
  }

  test('one caller has so many open; what ends something then answers at once', async () => {
    const poll = held();
    const app = await start({ polls_per_caller: 1 }, poll.useCases);
    const first = app.ask('GET', `${TASK}?wait=60`);
    await poll.begun;
    expectRefused(await app.ask('GET', `${TASK}?wait=60`), 'too_many_polls');
    expect(statuses(await asked(app, 1))).toEqual([200]);
    expect((await app.ask('POST', `${TASK}/complete?wait=60`)).status).toBe(200);
    expect(poll.waits).toEqual([0]);
    poll.release();
    expect((await first).status).toBe(200);
    expect((await app.ask('GET', `${TASK}?wait=60`)).status).toBe(200);
    expect((await app.ask('POST', `${TASK}/complete?wait=60`)).status).toBe(200);
    expect(poll.waits).toEqual([0, 60]);
  });

  test('and another caller has its own', async () => {
    const poll = held();
    const app = await start({ polls_per_caller: 1 }, poll.useCases);
    const first = app.ask('GET', `${TASK}?wait=60`);
    await poll.begun;
    const second = app.ask('GET', `${TASK}?wait=60`, { token: 'stranger' });
    poll.release();
    expect(statuses(await Promise.all([first, second]))).toEqual([200, 200]);
  });
});
