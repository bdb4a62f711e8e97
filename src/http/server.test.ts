import { once } from 'node:events';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { makeCertificate } from '../../test/support/certificates.ts';
import { createLogger } from './log.ts';
import { startServer } from './server.ts';
import { sampleTask, TASK_ID } from './testing/samples.ts';
import { startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function start(options: TestAppOptions = {}): Promise<TestApp> {
  const app = await startTestApp(options);
  running.push(app);
  return app;
}

const TASK = `/v1/tasks/task_${TASK_ID}`;
const view = { task: sampleTask(), grants: [], children: [] };

/** A promise and how to settle it. */
function signal() {
  let settle = () => {};
  const happened = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { happened, settle };
}

describe('what is no HTTP', () => {
  test.each([
    ['noise', 'canary noise\r\n\r\n', 400],
    ['a bad header', 'GET / HTTP/1.1\r\nHost: localhost\r\nBad Header\r\n\r\n', 400],
    ['a method that is none', 'BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n', 400],
    [
      'two lengths',
      'POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}',
      400,
    ],
    [
      'a length beside chunks',
      'POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      400,
    ],
    ['too much header', `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'x'.repeat(30_000)}\r\n\r\n`, 431],
  ])('is answered plainly and hung up on: %s', async (_what, bytes, status) => {
    const answer = await (await start()).raw(bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).not.toContain('canary');
  });

  test('leaves room for a token of 16 KiB', async () => {
    const { body } = await (await start()).ask('GET', TASK, { token: 'x'.repeat(16 * 1024) });
    expect(body).toMatchObject({ code: 'workload_token_invalid' });
  });
});

describe('closing', () => {
  test('accepts nothing new, lets what is in hand finish, and tells it to hang up', async () => {
    const asked = signal();
    const answer = signal();
    let draining = false;
    const app = await start({
      draining: () => draining,
      useCases: {
        readTask: async () => {
          asked.settle();
          await answer.happened;
          return view;
        },
      },
    });
    const agent = new Agent({ keepAlive: true });
    const reply = new Promise<{ status: number | undefined; connection: string | undefined }>((resolve, reject) => {
      httpRequest(
        { port: app.port, host: '127.0.0.1', path: TASK, agent, headers: { authorization: 'Bearer agent' } },
        (response) => {
          response.resume();
          resolve({ status: response.statusCode, connection: response.headers.connection });
        },
      )
        .on('error', reject)
        .end();
    });
    await asked.happened;
    draining = true;
    const closed = app.close(10);
    await expect(app.ask('GET', '/healthz')).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    answer.settle();
    expect(await reply).toEqual({ status: 200, connection: 'close' });
    await closed;
    agent.destroy();
  });

  test('ends long polls at once, with what is known', async () => {
    const waiting = signal();
    const app = await start({
      useCases: { readTask: async () => view },
      wait: async (_id, _millis, aborted) => {
        waiting.settle();
        await new Promise((resolve) => aborted.addEventListener('abort', resolve));
      },
    });
    const reply = app.ask('GET', `${TASK}?wait=60`);
    await waiting.happened;
    const began = performance.now();
    await app.close(30);
    expect((await reply).status).toBe(200);
    expect(performance.now() - began).toBeLessThan(20_000);
  });

  test('does not wait for kept-alive connections with nothing to say', async () => {
    const app = await start();
    const socket = connect(app.port, '127.0.0.1');
    socket.write('GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await once(socket, 'data');
    const ended = once(socket, 'close');
    const began = performance.now();
    await app.close(30);
    await ended;
    expect(performance.now() - began).toBeLessThan(20_000);
  });

  test('cuts what outlasts the grace', async () => {
    const asked = signal();
    const app = await start({
      useCases: {
        readTask: () => {
          asked.settle();
          return new Promise(() => {});
        },
      },
    });
    const reply = app.ask('GET', TASK);
    const cut = reply.catch((error: unknown) => error);
    await asked.happened;
    await app.close(0.05);
    expect(await cut).toMatchObject({ code: 'ECONNRESET' });
  });

  test('waits for a handler whose caller left', async () => {
    const asked = signal();
    const left = signal();
    const work = signal();
    let finished = false;
    const app = await start({
      useCases: {
        endTask: async (_deps, _caller, _id, _how, context) => {
          context.gone.addEventListener('abort', () => left.settle());
          asked.settle();
          await work.happened;
          finished = true;
          return { task: sampleTask(), grants: [] };
        },
        viewTask: async () => view,
      },
    });
    const reply = app.ask('POST', `${TASK}/complete`);
    const socket = connect(app.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`POST ${TASK}/complete HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer agent\r\n\r\n`);
    await asked.happened;
    socket.destroy();
    await left.happened;
    const closed = app.close(10);
    work.settle();
    await closed;
    expect(finished).toBe(true);
    await reply;
  });

  test('said twice waits for the same end', async () => {
    const app = await start();
    await Promise.all([app.close(1), app.close(1)]);
    await app.close(1);
    expect(app.port).toBeGreaterThan(0);
  });
});

function askTls(port: number, ca: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      port,
      path: '/healthz',
      servername: 'localhost',
      ca,
      agent: false,
      headers: { host: 'localhost' },
    };
    httpsRequest(options, (response) => {
      response.resume();
      resolve(response.statusCode);
    })
      .on('error', reject)
      .end();
  });
}

describe('listening', () => {
  test('on a port that is taken is refused by its code', async () => {
    const app = await start();
    const config = {
      host: '127.0.0.1',
      port: app.port,
      tls_cert_file: undefined,
      tls_key_file: undefined,
      tls_client_certificates: 'off' as const,
    };
    await expect(startServer({ app: app.app, config, log: createLogger('silent') })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  test('with a certificate speaks TLS and nothing else, and takes a renewed one into use', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-http-'));
    const { app } = await start();
    const first = makeCertificate(folder, ['localhost']);
    const config = {
      host: '127.0.0.1',
      port: 0,
      tls_cert_file: first.certFile,
      tls_key_file: first.keyFile,
      tls_client_certificates: 'off' as const,
    };
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const server = await startServer({ app, config, log: createLogger('silent') });
    try {
      expect(server.url).toBe(`https://127.0.0.1:${server.port}`);
      expect(await askTls(server.port, first.caPem)).toBe(200);
      await expect(fetch(`http://127.0.0.1:${server.port}/healthz`)).rejects.toThrow('fetch failed');

      const second = makeCertificate(folder, ['localhost']);
      await expect(askTls(server.port, second.caPem)).rejects.toThrow(/certificate/);
      vi.advanceTimersByTime(61_000);
      expect(await askTls(server.port, second.caPem)).toBe(200);

      // Half of a pair: the one before stays.
      copyFileSync(join(folder, 'ca.key'), second.keyFile);
      vi.advanceTimersByTime(61_000);
      expect(await askTls(server.port, second.caPem)).toBe(200);
    } finally {
      vi.useRealTimers();
      await server.close(1);
      rmSync(folder, { recursive: true });
    }
  });

  test('with a key that does not fit is refused', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'mayfly-http-'));
    try {
      const { app } = await start();
      const { certFile, keyFile } = makeCertificate(folder, ['localhost']);
      copyFileSync(certFile, join(folder, 'other.pem'));
      makeCertificate(folder, ['localhost']);
      const config = {
        host: '127.0.0.1',
        port: 0,
        tls_cert_file: join(folder, 'other.pem'),
        tls_key_file: keyFile,
        tls_client_certificates: 'off' as const,
      };
      await expect(startServer({ app, config, log: createLogger('silent') })).rejects.toThrow(/key values mismatch/);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
