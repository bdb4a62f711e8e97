import { afterEach, describe, expect, test } from 'vitest';
import { startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function start(config: TestAppOptions['config'] = {}): Promise<TestApp> {
  const app = await startTestApp({ config });
  running.push(app);
  return app;
}

const docs = async (app: TestApp, host: string) => {
  const { status, body } = await app.ask('GET', '/docs', { headers: { host } });
  return status === 200 ? 200 : [status, (body as { code: string }).code];
};

describe('the Host header', () => {
  test.each(['127.0.0.1:7420', '127.0.0.1', 'localhost', 'LocalHost:8080', '[::1]:7420', '127.9.9.9'])(
    '%s is a name of a loopback listener',
    async (host) => {
      expect(await docs(await start(), host)).toBe(200);
    },
  );

  test.each([
    'evil.example',
    'localhost.evil.example',
    'evil.example:7420',
    '10.0.0.1',
    '127.0.0.1.evil.example',
    'localhost:',
    '[::1',
    'a@localhost',
    '0.0.0.0',
    '[::ffff:7f00:1]',
  ])('"%s" is not', async (host) => {
    expect(await docs(await start(), host)).toEqual([400, 'host_refused']);
  });

  test.each<[string, boolean]>([
    ['broker.example', true],
    ['BROKER.example:443', true],
    ['broker.example:8443', false],
    ['localhost', false],
    ['127.0.0.1', false],
    ['broker.example.evil.example', false],
  ])('must name the public URL: %s %s', async (host, ours) => {
    const app = await start({ public_url: 'https://broker.example' });
    expect(await docs(app, host)).toEqual(ours ? 200 : [400, 'host_refused']);
  });

  test('keeps the port of the public URL', async () => {
    const app = await start({ public_url: 'https://broker.example:8443' });
    expect(await docs(app, 'broker.example:8443')).toBe(200);
    expect(await docs(app, 'broker.example')).toEqual([400, 'host_refused']);
  });

  test('may be an address for those who keep the machine, and never another name', async () => {
    const app = await start({ public_url: 'https://broker.example' });
    for (const path of ['/healthz', '/readyz', '/metrics']) {
      expect((await app.ask('GET', path, { headers: { host: '10.1.2.3:7420' } })).status).toBe(200);
      expect((await app.ask('GET', path, { headers: { host: '[fd00::7]:7420' } })).status).toBe(200);
      expect((await app.ask('GET', path, { headers: { host: 'evil.example' } })).status).toBe(400);
    }
    expect((await app.ask('GET', '/openapi.json', { headers: { host: '10.1.2.3:7420' } })).status).toBe(400);
  });

  test('counts only once, and no target may go round it', async () => {
    const app = await start();
    const end = 'Connection: close\r\n\r\n';
    expect(await app.raw(`GET /docs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n${end}`)).toMatch(
      /^HTTP\/1.1 400 /,
    );
    expect(await app.raw(`GET http://evil.example/docs HTTP/1.1\r\nHost: localhost\r\n${end}`)).toMatch(
      /^HTTP\/1.1 400 [^]*host_refused/,
    );
    expect(await app.raw(`GET /docs HTTP/1.1\r\n${end}`)).toMatch(/^HTTP\/1.1 400 [^]*host_refused/);
    expect(await app.raw(`GET /docs HTTP/1.1\r\nHost: \r\n${end}`)).toMatch(/^HTTP\/1.1 400 [^]*host_refused/);
    expect(await app.raw('GET /docs HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1.1 400 [^]*host_refused/);
  });

  test('is not replaced by what a proxy says', async () => {
    const app = await start();
    const { status } = await app.ask('GET', '/docs', {
      headers: { host: 'evil.example', 'x-forwarded-host': 'localhost', forwarded: 'host=localhost' },
    });
    expect(status).toBe(400);
  });
});

describe('trusted proxies', () => {
  test('are the only peers, but for probes and scrapes', async () => {
    const app = await start({ trusted_proxies: ['10.0.0.0/8'] });
    const { status, body } = await app.ask('GET', '/openapi.json');
    expect([status, body]).toMatchObject([403, { code: 'peer_refused' }]);
    expect((await app.ask('GET', '/openapi.json', { headers: { 'x-forwarded-for': '10.1.2.3' } })).status).toBe(403);
    expect((await app.ask('GET', '/healthz')).status).toBe(200);
  });

  test('tell the caller’s address, for the log alone', async () => {
    const app = await start({ trusted_proxies: ['127.0.0.0/8', '10.0.0.0/8'] });
    await app.ask('GET', '/openapi.json', { headers: { 'x-forwarded-for': '1.1.1.1, 203.0.113.9, 10.1.2.3' } });
    await app.ask('GET', '/openapi.json', { headers: { 'x-forwarded-for': '1.1.1.1, canary"' } });
    const clients = app.lines().map((line) => line['client']);
    expect(clients).toEqual(['203.0.113.9', '127.0.0.1']);
  });

  test('are not believed in where none are named', async () => {
    const app = await start();
    await app.ask('GET', '/openapi.json', { headers: { 'x-forwarded-for': '203.0.113.9' } });
    expect(app.lines().map((line) => line['client'])).toEqual(['127.0.0.1']);
  });
});

describe('the request id', () => {
  test('is the caller’s own where it is fit', async () => {
    const app = await start();
    for (const id of ['a', 'A-b_c.9', 'x'.repeat(64)]) {
      expect((await app.ask('GET', '/healthz', { headers: { 'x-request-id': id } })).headers['x-request-id']).toBe(id);
    }
  });

  test('is made where it is not', async () => {
    const app = await start();
    for (const id of ['', 'a b', 'x'.repeat(65), 'a"b', '{}', 'ä', ['a', 'b']]) {
      const { headers } = await app.ask('GET', '/healthz', { headers: { 'x-request-id': id } });
      expect(headers['x-request-id']).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4/);
    }
  });
});

describe('every answer', () => {
  test.each([
    '/healthz',
    '/metrics',
    '/docs',
    '/docs/init.js',
    '/openapi.json',
    '/problems/not_found',
    '/nothing',
    '/v1/tasks/x',
  ])('is guarded: %s', async (path) => {
    const app = await start({ public_url: 'https://broker.example' });
    const { headers } = await app.ask('GET', path, { headers: { host: 'broker.example' } });
    expect(headers).toMatchObject({
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
      'referrer-policy': 'no-referrer',
      'strict-transport-security': 'max-age=31536000',
      'content-security-policy': expect.stringMatching(/^default-src 'none';(?!.*unsafe)/),
      'x-request-id': expect.any(String),
    });
    expect(headers).not.toHaveProperty('x-powered-by');
    expect(headers).not.toHaveProperty('etag');
    expect(headers).not.toHaveProperty('access-control-allow-origin');
  });

  test('of a broker on loopback does not bind a browser to https', async () => {
    expect((await (await start()).ask('GET', '/healthz')).headers).not.toHaveProperty('strict-transport-security');
  });
});
