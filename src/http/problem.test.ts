import { afterEach, describe, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { problemCodes, problemKind } from '../domain/problems.ts';
import { problemBody, problemPageBody } from './answers.ts';
import { asMayflyError, problemOf } from './problem.ts';
import { GRANT_ID, TASK_ID } from './testing/samples.ts';
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

/** RFC 9728 §5.1. */
const TOLD = 'realm="mayfly", resource_metadata="http://127.0.0.1:7420/.well-known/oauth-protected-resource"';

describe('a refusal', () => {
  test.each(problemCodes)('with code %s is a problem body that says what to do next', async (code) => {
    const app = await start({ useCases: { readTask: () => Promise.reject(new MayflyError(code)) } });
    const { status, headers, body } = await app.ask('GET', TASK, { headers: { 'x-request-id': 'r-1' } });
    const kind = problemKind(code);
    expect([status, headers['content-type'], headers['cache-control']]).toEqual([
      kind.status,
      'application/problem+json',
      'no-store',
    ]);
    expect(problemBody.parse(body)).toEqual({
      type: `/problems/${code}`,
      code,
      status: kind.status,
      title: kind.title,
      next: kind.next,
      instance: 'r-1',
    });
    expect(headers['www-authenticate'] !== undefined).toBe(status === 401);
    expect(headers['retry-after'] !== undefined).toBe(status === 503);
    expect(app.lines().find((line) => line['msg'] === 'request')).toMatchObject({ code, status, request_id: 'r-1' });
  });

  test('can not have its own words replaced by members', async () => {
    const error = new MayflyError('not_found', undefined, {
      members: { status: 200, code: 'ok', type: 'x', extra: 1 },
    });
    const app = await start({ useCases: { readTask: () => Promise.reject(error) } });
    expect((await app.ask('GET', TASK)).body).toMatchObject({
      status: 404,
      code: 'not_found',
      type: '/problems/not_found',
      extra: 1,
    });
  });

  test('keeps its cause for the log', async () => {
    const error = new MayflyError('target_refused', undefined, {
      cause: new Error('role canary-cause is not allowed'),
    });
    const app = await start({ useCases: { readTask: () => Promise.reject(error) } });
    const { text } = await app.ask('GET', TASK);
    expect(text).not.toContain('canary-cause');
    expect(app.logText()).toContain('canary-cause');
  });

  test('of something unforeseen says nothing of it', async () => {
    const app = await start({ useCases: { readTask: () => Promise.reject(new TypeError('canary-crash')) } });
    const { status, text, body } = await app.ask('GET', TASK);
    expect([status, body]).toMatchObject([500, { code: 'internal' }]);
    expect(text).not.toMatch(/canary|TypeError|node_modules/);
    expect(app.lines().find((line) => line['msg'] === 'request')).toMatchObject({
      level: 'error',
      code: 'internal',
      err: { cause: { message: 'canary-crash' } },
    });
  });

  test.each(['canary-crash', undefined, null, { code: 'not_found', status: 200 }])(
    'of what is no error is ours: %o',
    (thrown) => {
      const error = asMayflyError(thrown);
      expect([error.code, JSON.stringify(problemOf(error, 'r-1'))]).toEqual([
        'internal',
        expect.not.stringContaining('canary'),
      ]);
    },
  );
});

describe('a caller without proof', () => {
  test.each([
    'POST /v1/tasks',
    `GET ${TASK}`,
    `GET ${TASK}/timeline`,
    `POST ${TASK}/complete`,
    `POST ${TASK}/cancel`,
    `GET /v1/grants/grt_${GRANT_ID}`,
    `DELETE /v1/grants/grt_${GRANT_ID}`,
  ])('is asked for it: %s', async (call) => {
    const [method = '', path = ''] = call.split(' ');
    const app = await start();
    const body = path === '/v1/tasks' ? { request: 'a.b.c' } : undefined;
    const none = await app.ask(method, path, { token: false, body });
    expect([none.status, none.headers['www-authenticate'], none.body]).toMatchObject([
      401,
      `Bearer ${TOLD}, DPoP ${TOLD}, algs="ES256 ES384 EdDSA Ed25519 PS256 RS256"`,
      { code: 'workload_token_missing' },
    ]);
    const wrong = await app.ask(method, path, { token: 'wrong', body });
    expect([wrong.status, wrong.headers['www-authenticate']]).toEqual([
      401,
      `Bearer ${TOLD}, error="invalid_token", error_description="workload_token_invalid"`,
    ]);
  });

  test('may not send two: whose is the other?', async () => {
    const app = await start();
    const { status, body } = await app.ask('GET', TASK, {
      token: false,
      headers: { authorization: ['Bearer agent', 'Bearer stranger'] },
    });
    expect([status, body]).toMatchObject([400, { code: 'invalid_request', errors: [{ path: 'authorization' }] }]);
  });
});

describe('an address', () => {
  test.each([
    '/',
    '/v1',
    '/v1/tasks/',
    `${TASK}/`,
    '/V1/tasks',
    '/v1/tasks/x/y/z',
    '/docs/../package.json',
    '/docs/..%2fpackage.json',
    '/problems/nothing',
    '/favicon.ico',
  ])('that leads nowhere is not found: %s', async (path) => {
    const app = await start();
    const { status, body } = await app.ask('GET', path, { token: false });
    expect([status, body]).toMatchObject([404, { code: 'not_found' }]);
  });

  test('that can not be decoded is malformed', async () => {
    const app = await start();
    const { status, body } = await app.ask('GET', '/v1/tasks/%E0%A4%A');
    expect([status, body]).toMatchObject([400, { code: 'invalid_request' }]);
  });

  test.each<[string, string, string]>([
    ['PUT', '/v1/tasks', 'POST'],
    ['OPTIONS', '/v1/tasks', 'POST'],
    ['PATCH', TASK, 'GET, HEAD'],
    ['POST', `/v1/grants/grt_${GRANT_ID}`, 'GET, HEAD, DELETE'],
    ['TRACE', '/metrics', 'GET, HEAD'],
    ['DELETE', '/openapi.json', 'GET, HEAD'],
  ])('does not know %s %s', async (method, path, allow) => {
    const app = await start();
    const { status, headers, body } = await app.ask(method, path);
    expect([status, headers.allow, body]).toMatchObject([405, allow, { code: 'method_not_allowed' }]);
  });

  test('asked with HEAD answers as with GET, without the body', async () => {
    const app = await start();
    const { status, headers, text } = await app.ask('HEAD', '/healthz');
    expect([status, headers['content-length'], text]).toEqual([200, '15', '']);
  });
});

describe('the page of a problem', () => {
  test('is there for each code, for programs and for people', async () => {
    const app = await start();
    for (const code of problemCodes) {
      const json = await app.ask('GET', `/problems/${code}`, { token: false });
      expect(problemPageBody.parse(json.body)).toMatchObject({ code, type: `/problems/${code}` });
      const html = await app.ask('GET', `/problems/${code}`, {
        token: false,
        headers: { accept: 'text/html,application/xhtml+xml;q=0.9,*/*;q=0.8' },
      });
      expect(html.headers['content-type']).toBe('text/html; charset=utf-8');
      expect(html.text).toContain(`<code>${code}</code>`);
      // What the texts hold between angle brackets is no markup.
      expect(html.text).not.toMatch(/<(?!\/?(html|head|meta|title|body|h1|p|dl|dt|dd|code|!doctype)\b)/i);
    }
  });
});
