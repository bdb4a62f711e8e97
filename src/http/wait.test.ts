import { afterEach, describe, expect, test } from 'vitest';
import { agent, sampleTask, TASK_ID } from './testing/samples.ts';
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

const TASK = `/v1/tasks/task_${TASK_ID}`;

describe('a wait', () => {
  test.each(['61', '-1', '1.5', '5m', '', '1e1', '007', 'NaN', '%00'])('of "%s" is refused', async (wait) => {
    const app = await start({ useCases: { readTask: async () => ({ task: sampleTask(), grants: [], children: [] }) } });
    const { status, body } = await app.ask('GET', `${TASK}?wait=${wait}`);
    expect([status, body]).toMatchObject([400, { code: 'invalid_request', errors: [{ path: '?wait' }] }]);
  });

  test.each(['?wait=1&wait=2', '?Wait=1', '?limit=5', '?wait=1&x=', '?__proto__=1'])(
    'is the only thing that can be asked for: %s',
    async (query) => {
      const app = await start({
        useCases: { readTask: async () => ({ task: sampleTask(), grants: [], children: [] }) },
      });
      const { status, body } = await app.ask('GET', `${TASK}${query}`);
      expect([status, body]).toMatchObject([400, { code: 'invalid_request' }]);
    },
  );

  test('lasts no longer than the caller’s token', async () => {
    const seen: number[] = [];
    const app = await start({
      useCases: {
        authenticate: async () => ({
          caller: { ...agent, expiresAt: new Date(Date.now() + 20_000) },
          proof: null,
        }),
        endTask: async () => ({ task: sampleTask(), grants: [] }),
        viewTask: async () => ({ task: sampleTask(), grants: [], children: [] }),
        waitContained: async (_deps, _id, seconds) => {
          seen.push(seconds);
          return [];
        },
      },
    });
    await app.ask('POST', `${TASK}/complete?wait=60`);
    await app.ask('POST', `${TASK}/complete?wait=1`);
    expect(seen).toEqual([expect.any(Number), 1]);
    expect(seen[0]).toBeLessThanOrEqual(20);
  });

  test('is refused where nothing is waited for', async () => {
    const app = await start({ useCases: { readTimeline: async () => [] } });
    expect((await app.ask('GET', `${TASK}/timeline?wait=1`)).status).toBe(400);
  });
});
