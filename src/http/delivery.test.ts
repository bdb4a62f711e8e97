import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import type { UseCases } from './deps.ts';
import { GRANT_ID, PASSWORD, sampleCredential, sampleGrant, sampleTask, TASK_ID } from './testing/samples.ts';
import { startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function start(options: TestAppOptions): Promise<TestApp> {
  const app = await startTestApp(options);
  running.push(app);
  return app;
}

const ISSUE = `/v1/tasks/task_${TASK_ID}/grants`;
const expiresAt = new Date('2026-11-22T18:05:00Z');
const issued = () => ({
  grant: sampleGrant(),
  credential: sampleCredential(),
  expiresAt,
  cut: null,
  idempotencyReplayed: false,
});

/** A promise and how to settle it. */
function signal() {
  let settle = () => {};
  const happened = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { happened, settle };
}

/** Sends a request and answers the socket, so that the caller can leave. */
function send(app: TestApp, path: string, body: unknown): Socket {
  const text = JSON.stringify(body);
  const socket = connect(app.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write(
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer agent\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
  );
  return socket;
}

describe('a caller that leaves', () => {
  test('while its credential is made is known to be gone', async () => {
    const asked = signal();
    const gone = signal();
    const app = await start({
      useCases: {
        issueGrant: async (_deps, _caller, _id, _request, context) => {
          asked.settle();
          await new Promise((resolve) => context.gone.addEventListener('abort', resolve));
          gone.settle();
          throw new MayflyError('target_unavailable');
        },
      },
    });
    const socket = send(app, ISSUE, { entitlement: 'x/y' });
    await asked.happened;
    socket.destroy();
    await gone.happened;
    await app.stop();
    expect(app.lines().find((line) => line['msg'] === 'request')).toMatchObject({
      status: 'aborted',
      route: '/v1/tasks/{id}/grants',
    });
  });

  test('before its credential could be written loses it: it is taken back', async () => {
    const asked = signal();
    const left = signal();
    const taken = signal();
    const takenBack: string[] = [];
    const app = await start({
      useCases: {
        // A mint that did not notice in time.
        issueGrant: async (_deps, _caller, _id, _request, context) => {
          context.gone.addEventListener('abort', () => left.settle());
          asked.settle();
          await left.happened;
          return issued();
        },
        takeBackUndelivered: async (_deps, grant) => {
          takenBack.push(grant.grant.id);
          taken.settle();
        },
      },
    });
    const socket = send(app, ISSUE, { entitlement: 'x/y' });
    await asked.happened;
    socket.destroy();
    await taken.happened;
    expect(takenBack).toEqual([GRANT_ID]);
    expect(app.logText()).not.toContain(PASSWORD);
  });

  test('loses every credential of a task opened with several', async () => {
    const other = '0198c0de-7a11-7000-8000-00000000000b' as typeof GRANT_ID;
    const left = signal();
    const both = signal();
    const takenBack: string[] = [];
    let socket: Socket | undefined;
    const app = await start({
      useCases: {
        openTask: async () => ({ task: sampleTask(), replayed: false, cut: null }),
        issueGrant: async (_deps, _caller, _id, request, context) => {
          context.gone.addEventListener('abort', () => left.settle());
          socket?.destroy();
          await left.happened;
          return {
            ...issued(),
            grant: sampleGrant({ grant: { id: request.entitlement === 'x/1' ? GRANT_ID : other } }),
          };
        },
        viewTask: async () => ({ task: sampleTask(), grants: [], children: [] }),
        takeBackUndelivered: async (_deps, grant) => {
          takenBack.push(grant.grant.id);
          if (takenBack.length === 2) both.settle();
        },
      },
    });
    socket = send(app, '/v1/tasks', { request: 'a.b.c', issue: ['x/1', 'x/2'] });
    await both.happened;
    expect(takenBack.sort()).toEqual([GRANT_ID, other]);
  });
});

describe('a credential', () => {
  const counting = (useCases: Partial<UseCases>) => {
    const takenBack: string[] = [];
    return {
      takenBack,
      useCases: {
        ...useCases,
        takeBackUndelivered: async (_deps: unknown, grant: { grant: { id: string } }) =>
          void takenBack.push(grant.grant.id),
      },
    };
  };

  test('that was delivered is left in peace', async () => {
    const { takenBack, useCases } = counting({ issueGrant: async () => issued() });
    const app = await start({ useCases });
    expect((await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } })).status).toBe(201);
    await app.stop();
    expect(takenBack).toEqual([]);
  });

  test('whose answer could not be made is taken back', async () => {
    const { takenBack, useCases } = counting({
      openTask: async () => ({ task: sampleTask(), replayed: false, cut: null }),
      issueGrant: async () => issued(),
      viewTask: () => Promise.reject(new MayflyError('store_unavailable')),
    });
    const app = await start({ useCases });
    const { status, text } = await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c', issue: ['x/y'] } });
    expect(status).toBe(503);
    expect(text).not.toContain(PASSWORD);
    await app.stop();
    expect(takenBack).toEqual([GRANT_ID]);
  });

  test('that can not be taken back is cried about, without the secret', async () => {
    const app = await start({
      useCases: {
        openTask: async () => ({ task: sampleTask(), replayed: false, cut: null }),
        issueGrant: async () => issued(),
        viewTask: () => Promise.reject(new MayflyError('store_unavailable')),
        takeBackUndelivered: () => Promise.reject(new MayflyError('store_unavailable')),
      },
    });
    await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c', issue: ['x/y'] } });
    await app.stop();
    expect(app.lines().find((line) => line['level'] === 'error')).toMatchObject({
      grant_id: `grt_${GRANT_ID}`,
      error: { code: 'store_unavailable' },
    });
    expect(app.logText()).not.toContain(PASSWORD);
  });

  test('stands in its answer and in no line of the log', async () => {
    const app = await start({ useCases: { issueGrant: async () => issued() } });
    expect((await app.ask('POST', ISSUE, { body: { entitlement: 'x/y' } })).text).toContain(PASSWORD);
    await app.stop();
    expect(app.logText()).toContain(`grt_${GRANT_ID}`);
    expect(app.logText()).not.toContain(PASSWORD);
    expect(app.logText()).not.toContain('Bearer');
  });
});
