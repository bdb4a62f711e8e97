import { afterEach, describe, expect, test } from 'vitest';
import { readyBody } from './answers.ts';
import { startTestApp, type TestApp, type TestAppOptions } from './testing/test-app.ts';

const running: TestApp[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((app) => app.stop()));
});

async function ready(readiness: NonNullable<TestAppOptions['readiness']>) {
  const app = await startTestApp({ readiness });
  running.push(app);
  const { status, body } = await app.ask('GET', '/readyz', { token: false });
  return { status, body: readyBody.parse(body), app };
}

test('/healthz answers though nothing else works', async () => {
  const { app } = await ready(() => Promise.reject(new Error('down')));
  const { status, body } = await app.ask('GET', '/healthz', { token: false });
  expect([status, body]).toEqual([200, { status: 'ok' }]);
});

describe('/readyz', () => {
  test('answers 200 when every part is', async () => {
    const { status, body } = await ready(async () => [{ part: 'store', ok: true, says: 'said only when not' }]);
    expect([status, body]).toEqual([200, { status: 'ready', parts: [{ part: 'store', ok: true }] }]);
  });

  test('answers 503 and names the part that is not', async () => {
    const { status, body } = await ready(async () => [
      { part: 'store', ok: true },
      { part: 'catalog', ok: false, says: 'no catalog is active yet' },
    ]);
    expect(status).toBe(503);
    expect(body).toEqual({
      status: 'not_ready',
      parts: [
        { part: 'store', ok: true },
        { part: 'catalog', ok: false, says: 'no catalog is active yet' },
      ],
    });
  });

  test('answers 503 when the parts can not be asked, and says nothing of why', async () => {
    const { status, body, app } = await ready(() => Promise.reject(new Error('canary-dsn')));
    expect([status, body]).toMatchObject([503, { parts: [{ part: 'readiness', ok: false }] }]);
    expect(JSON.stringify(body)).not.toContain('canary');
    expect(app.logText()).toContain('canary-dsn');
  });

  test('answers 503 when a part hangs', async () => {
    const { status, body } = await ready(() => new Promise(() => {}));
    expect([status, body]).toMatchObject([
      503,
      { parts: [{ part: 'readiness', ok: false, says: 'the parts do not answer in time' }] },
    ]);
  });

  test('is not shouted about, as long as it is well', async () => {
    const well = await ready(async () => []);
    expect(well.app.lines().find((line) => line['route'] === '/readyz')).toMatchObject({ level: 'debug' });
    const ill = await ready(async () => [{ part: 'store', ok: false }]);
    expect(ill.app.lines().find((line) => line['route'] === '/readyz')).toMatchObject({ level: 'warn' });
  });
});

describe('/metrics', () => {
  test('tells what was asked and answered by pattern, and nothing of the store when that is down', async () => {
    const { app } = await ready(async () => []);
    await app.ask('GET', '/v1/tasks/nonsense?wait=1');
    await app.ask('GET', '/canary-address');
    await app.ask('PROPFIND', '/canary-address');
    const { status, headers, text } = await app.ask('GET', '/metrics', { token: false });
    expect([status, headers['content-type']]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8']);
    expect(text).toContain('mayfly_http_requests_total{route="/v1/tasks/{id}",method="GET",status="404"} 1');
    expect(text).toContain('mayfly_http_requests_total{route="unmatched",method="GET",status="404"} 1');
    expect(text).toContain('mayfly_http_requests_total{route="unmatched",method="other",status="404"} 1');
    expect(text).toContain('mayfly_refusals_total{code="not_found"} 3');
    expect(text).toContain('mayfly_store_up 0');
    expect(text).toMatch(/mayfly_build_info\{version="\d+\.\d+\.\d+[^"]*"\} 1/);
    expect(text).not.toContain('canary');
  });
});
