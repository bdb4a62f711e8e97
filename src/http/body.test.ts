import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GRANT_ID, sampleGrant, sampleTask, TASK_ID } from './testing/samples.ts';
import { startTestApp, type TestApp } from './testing/test-app.ts';

let app: TestApp;
let reached = 0;
beforeAll(async () => {
  app = await startTestApp({
    useCases: {
      openTask: async () => {
        reached += 1;
        return { task: sampleTask(), replayed: false, cut: null };
      },
      renewGrant: async () => {
        reached += 1;
        return { grant: sampleGrant(), credential: null, expiresAt: new Date(), cut: null };
      },
    },
  });
});
afterAll(() => app.stop());

const open = (body: unknown, headers = {}) => app.ask('POST', '/v1/tasks', { body, headers });
const renew = (ttl: string) => app.ask('POST', `/v1/grants/grt_${GRANT_ID}/renew`, { body: `{"ttl_seconds":${ttl}}` });

describe('a body', () => {
  test('that fits reaches the use case', async () => {
    const before = reached;
    expect((await open({ request: 'a.b.c' })).status).toBe(201);
    expect((await open({ request: 'a.b.c' }, { 'content-type': 'Application/JSON; charset="UTF-8"' })).status).toBe(
      201,
    );
    expect(reached).toBe(before + 2);
  });

  test.each<[string, unknown, number, string]>([
    ['malformed JSON', '{"request":', 400, 'malformed_json'],
    ['two values', '{} {}', 400, 'malformed_json'],
    ['a byte order mark', '\uFEFF{"request":"a.b.c"}', 400, 'malformed_json'],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0xfe, 0x22]), 400, 'malformed_json'],
    ['a surrogate encoded as bytes', Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]), 400, 'malformed_json'],
    ['an empty body', '', 400, 'malformed_json'],
    ['a member twice', '{"request":"a.b.c","request":"d.e.f"}', 400, 'duplicate_member'],
    ['a member twice, once escaped', '{"request":"a.b.c","\\u0072equest":"d.e.f"}', 400, 'duplicate_member'],
    ['NUL in a string', '{"request":"a\\u0000"}', 400, 'malformed_json'],
    ['half a surrogate pair', '{"request":"\\ud800"}', 400, 'malformed_json'],
    ['deep nesting', `{"request":${'['.repeat(40)}${']'.repeat(40)}}`, 400, 'malformed_json'],
    ['an array', '[]', 400, 'invalid_request'],
    ['null', 'null', 400, 'invalid_request'],
    ['a missing member', {}, 400, 'invalid_request'],
    ['a wrong type', { request: 7 }, 400, 'invalid_request'],
    ['an unknown member', { request: 'a.b.c', admin: true }, 400, 'invalid_request'],
    ['__proto__', '{"request":"a.b.c","__proto__":{}}', 400, 'invalid_request'],
    ['a string without bounds', { request: 'a'.repeat(40_000) }, 400, 'invalid_request'],
    ['an entitlement twice', { request: 'a.b.c', issue: ['x/y', 'x/y'] }, 400, 'invalid_request'],
    [
      '17 entitlements',
      { request: 'a.b.c', issue: Array.from({ length: 17 }, (_, n) => `x/${n}`) },
      400,
      'invalid_request',
    ],
    ['sealed delivery of nothing', { request: 'a.b.c', delivery: { jwk: {} } }, 400, 'invalid_request'],
    [
      'sealed delivery to no key',
      { request: 'a.b.c', issue: ['x/y'], delivery: { jwk: {} } },
      422,
      'delivery_key_refused',
    ],
    ['2 MB', JSON.stringify({ request: 'a'.repeat(2_000_000) }), 413, 'body_too_large'],
  ])('with %s is refused before anything happens', async (_what, body, status, code) => {
    const before = reached;
    const reply = await open(body);
    expect([reply.status, reply.headers['content-type'], reply.body]).toMatchObject([
      status,
      'application/problem+json',
      { code, status },
    ]);
    expect(reached).toBe(before);
  });

  test('names each place that is wrong, and not what stood there', async () => {
    const reply = await open({ request: 7, issue: ['ok/ok', 9], 'odd name': 'canary-value' });
    expect(reply.body).toMatchObject({
      errors: expect.arrayContaining([
        { path: '$.request', message: expect.any(String) },
        { path: '$.issue[1]', message: expect.any(String) },
        { path: '$["odd name"]', message: 'is not known here' },
      ]),
    });
    expect(reply.text).not.toContain('canary-value');
  });

  test('with thousands of faults is told of some', async () => {
    const many = Object.fromEntries(Array.from({ length: 3_000 }, (_, n) => [`m${n}`, 0]));
    const { body } = await open(many);
    expect((body as { errors: unknown[] }).errors.length).toBeLessThanOrEqual(20);
  });

  test.each([
    ['text/plain', {}],
    ['application/x-www-form-urlencoded', {}],
    ['application/json; charset=utf-16', {}],
    ['application/json-patch+json', {}],
    ['application/json', { 'content-encoding': 'gzip' }],
  ])('of another kind is refused: %s %o', async (type, headers) => {
    const reply = await open('{"request":"a.b.c"}', { 'content-type': type, ...headers });
    expect([reply.status, reply.body]).toMatchObject([415, { code: 'unsupported_media_type' }]);
  });

  test('may not come with two types: who judged the other one?', async () => {
    const text = '{"request":"a.b.c"}';
    const answer = await app.raw(
      `POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer agent\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`,
    );
    expect(answer).toMatch(/^HTTP\/1.1 400 /);
    expect(answer).toContain('"path":"content-type"');
  });

  test('that is too large leaves its connection usable', async () => {
    const big = JSON.stringify({ request: 'a'.repeat(2_000_000) });
    const head = (path: string, more: string) => `${path} HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`;
    const answer = await app.raw(
      `${head('POST /v1/tasks', `Content-Type: application/json\r\nContent-Length: ${big.length}\r\n`)}${big}${head('GET /healthz', 'Connection: close\r\n')}`,
    );
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 413', 'HTTP/1.1 200']);
  });

  test('that is too large without saying so beforehand is refused as soon as it is', async () => {
    const chunk = `10000\r\n${'a'.repeat(65_536)}\r\n`;
    const answer = await app.raw(
      `POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}${chunk}0\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1.1 413 /);
  });

  test('without end is cut off', async () => {
    const closed = new Promise<number>((resolve) => {
      let sent = 0;
      const chunk = `100000\r\n${'a'.repeat(0x100000)}\r\n`;
      const socket = connect(app.port, '127.0.0.1', () => {
        socket.write(
          'POST /v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n',
        );
        const more = () => {
          if (socket.destroyed) return;
          sent += chunk.length;
          socket.write(chunk, more);
        };
        more();
      });
      socket.on('error', () => {});
      socket.on('data', () => {});
      socket.on('close', () => resolve(sent));
    });
    expect(await closed).toBeLessThan(64 * 1024 * 1024);
  });

  test('is not needed to end a task, and must be empty if it comes', async () => {
    const complete = (options: object) => app.ask('POST', `/v1/tasks/task_${TASK_ID}/complete`, options);
    // The store is down: getting as far as asking it is what is looked at.
    expect((await complete({})).status).toBe(503);
    expect((await complete({ body: {} })).status).toBe(503);
    expect((await complete({ body: { force: true } })).body).toMatchObject({ code: 'invalid_request' });
  });
});

describe('a TTL', () => {
  test.each(['0', '-1', '1.5', '1e308', '1e400', '86401', '"5m"', '"300"', 'null', 'true', '[300]', '{}'])(
    'of %s is impossible',
    async (ttl) => {
      const before = reached;
      const reply = await renew(ttl);
      expect([reply.status, reply.body]).toMatchObject([
        422,
        {
          code: 'impossible_value',
          errors: [{ path: '$.ttl_seconds', message: 'must be whole seconds from 1 to 86400' }],
        },
      ]);
      expect(reached).toBe(before);
    },
  );

  test.each(['1', '300', '86400', '3e2'])('of %s is possible', async (ttl) => {
    expect((await renew(ttl)).status).toBe(200);
  });

  test('that is missing where it is needed is a fault of the body', async () => {
    const reply = await app.ask('POST', `/v1/grants/grt_${GRANT_ID}/renew`, { body: {} });
    expect([reply.status, reply.body]).toMatchObject([400, { code: 'invalid_request' }]);
  });

  test('that is impossible beside something malformed is malformed', async () => {
    const reply = await app.ask('POST', `/v1/tasks/task_${TASK_ID}/grants`, {
      body: { entitlement: 5, ttl_seconds: 0 },
    });
    expect([reply.status, reply.body]).toMatchObject([400, { code: 'invalid_request' }]);
  });
});
