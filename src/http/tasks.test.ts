import { afterEach, describe, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { endedTaskBody, openedBody, taskBody, timelineBody } from './answers.ts';
import {
  containedGrant,
  GRANT_ID,
  PASSWORD,
  sampleCredential,
  sampleEvent,
  sampleGrant,
  sampleTask,
  TASK_ID,
} from './testing/samples.ts';
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
const opened = (over = {}) => ({ task: sampleTask(), replayed: false, cut: null, ...over });

describe('opening a task', () => {
  test('answers 201 with the task and where it is', async () => {
    const app = await start({ useCases: { openTask: async () => opened() } });
    const { status, headers, body } = await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c' } });
    expect([status, headers.location]).toEqual([201, TASK]);
    expect(openedBody.parse(body)).toEqual({
      task: {
        id: `task_${TASK_ID}`,
        external_id: 'run-7',
        state: 'active',
        purpose: 'reconcile.invoices',
        phase: 'plan',
        subject: 'user:dana',
        workload: 'dev:agent-recon',
        parent_id: null,
        created_at: '2026-11-22T18:00:00.000Z',
        not_after: '2026-11-22T19:00:00.000Z',
        grants: [],
        children: [],
      },
    });
  });

  test('hands the request and the caller to the use case as they came', async () => {
    const seen: unknown[] = [];
    const app = await start({
      useCases: {
        openTask: async (_deps, caller, request, context) => {
          seen.push(caller.workload, request, context.requestId, context.gone.aborted);
          return opened();
        },
      },
    });
    await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c' }, headers: { 'x-request-id': 'my-id_1.2' } });
    expect(seen).toEqual([{ source: 'dev', subject: 'agent-recon' }, 'a.b.c', 'my-id_1.2', false]);
  });

  test('says what was cut of its life', async () => {
    const cut = { by: 'purpose', askedNotAfter: new Date('2026-11-23T00:00:00Z') } as const;
    const app = await start({ useCases: { openTask: async () => opened({ cut }) } });
    const { body } = await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c' } });
    expect(openedBody.parse(body).cut).toEqual({ by: 'purpose', asked_not_after: '2026-11-23T00:00:00.000Z' });
  });

  test('issues what is named in the same call, at once, one result each, and opens regardless', async () => {
    const asked: string[] = [];
    let both = () => {};
    const together = new Promise<void>((resolve) => {
      both = resolve;
    });
    const app = await start({
      useCases: {
        openTask: async () => opened(),
        issueGrant: async (_deps, _caller, _taskId, request) => {
          asked.push(request.entitlement);
          if (asked.length === 2) both();
          await together;
          if (request.entitlement !== 'ledger-db/read-invoices') throw new MayflyError('not_in_task');
          return {
            grant: sampleGrant(),
            credential: sampleCredential(),
            expiresAt: new Date('2026-11-22T18:05:00Z'),
            cut: null,
            idempotencyReplayed: false,
          };
        },
        viewTask: async () => ({ task: sampleTask(), grants: [sampleGrant()], children: [] }),
      },
    });
    const { status, body } = await app.ask('POST', '/v1/tasks', {
      body: { request: 'a.b.c', issue: ['ledger-db/read-invoices', 'ledger-db/else'] },
    });
    expect(status).toBe(201);
    const { task, issued } = openedBody.parse(body);
    expect(task.grants.map((grant) => grant.id)).toEqual([`grt_${GRANT_ID}`]);
    expect(issued).toMatchObject([
      {
        entitlement: 'ledger-db/read-invoices',
        grant: { id: `grt_${GRANT_ID}` },
        credential: { password: PASSWORD, grant_id: `grt_${GRANT_ID}` },
      },
      { entitlement: 'ledger-db/else', problem: { code: 'not_in_task', status: 403 } },
    ]);
    expect(issued?.[1]).not.toHaveProperty('credential');
  });

  test('answers the same request 200 with its grants, and mints nothing', async () => {
    const app = await start({
      useCases: {
        openTask: async () => opened({ replayed: true }),
        issueGrant: () => Promise.reject(new Error('must not be called')),
        viewTask: async () => ({ task: sampleTask(), grants: [sampleGrant()], children: [] }),
      },
    });
    const { status, body, text } = await app.ask('POST', '/v1/tasks', {
      body: { request: 'a.b.c', issue: ['ledger-db/read-invoices'] },
    });
    expect(status).toBe(200);
    expect(openedBody.parse(body)).toMatchObject({ task: { grants: [{ id: `grt_${GRANT_ID}` }] } });
    expect(text).not.toMatch(/issued|credential|password/);
  });

  test('is not for operators', async () => {
    const app = await start({ useCases: { openTask: async () => opened() } });
    expect((await app.ask('POST', '/v1/tasks', { body: { request: 'a.b.c' }, token: 'operator' })).status).toBe(401);
  });
});

describe('ending a task', () => {
  const ending = (grants: ReturnType<typeof sampleGrant>[]): NonNullable<TestAppOptions['useCases']> => {
    const task = sampleTask({ state: 'completed', endedBy: 'completed' });
    return {
      endTask: async () => ({ task, grants }),
      viewTask: async () => ({ task, grants: [sampleGrant()], children: [] }),
      waitContained: async () => grants.map(() => containedGrant()),
    };
  };
  const due = sampleGrant({ grant: { state: 'revoking', endedBy: 'completed' }, revocation: { state: 'due' } });

  test('answers 202 with one line for each grant', async () => {
    const app = await start({ useCases: ending([due]) });
    const { status, body } = await app.ask('POST', `${TASK}/complete`);
    expect(status).toBe(202);
    const { task, revocations } = endedTaskBody.parse(body);
    expect(task).toMatchObject({
      state: 'completed',
      ended_by: 'completed',
      grants: [{ state: 'revoking', revocation: { state: 'due' } }],
    });
    expect(revocations).toEqual([
      { id: expect.stringMatching(/^rev_/), grant_id: `grt_${GRANT_ID}`, target: 'ledger-db', state: 'due' },
    ]);
  });

  test('with a wait answers 200 once all is contained, with the evidence', async () => {
    const app = await start({ useCases: ending([due]) });
    const { status, body } = await app.ask('POST', `${TASK}/complete?wait=30`, { body: {} });
    expect(status).toBe(200);
    expect(endedTaskBody.parse(body).revocations).toMatchObject([
      { state: 'contained', evidence: { sessions_ended: 1 } },
    ]);
  });

  test('with a wait that was too short answers 202', async () => {
    const app = await start({ useCases: { ...ending([due]), waitContained: async () => [due] } });
    expect((await app.ask('POST', `${TASK}/cancel?wait=0`)).status).toBe(202);
  });

  test('names which way', async () => {
    const seen: string[] = [];
    const app = await start({
      useCases: {
        ...ending([]),
        endTask: async (_deps, _caller, id, how) => {
          seen.push(id, how);
          return { task: sampleTask(), grants: [] };
        },
      },
    });
    await app.ask('POST', `${TASK}/complete`);
    await app.ask('POST', `${TASK}/cancel`);
    expect(seen).toEqual([TASK_ID, 'completed', TASK_ID, 'cancelled']);
  });

  test('that ended another way tells how', async () => {
    const error = new MayflyError('task_ended', 'The task is cancelled.', { members: { ended_by: 'cancelled' } });
    const app = await start({ useCases: { endTask: () => Promise.reject(error) } });
    const { status, body } = await app.ask('POST', `${TASK}/complete`);
    expect([status, body]).toMatchObject([
      409,
      { code: 'task_ended', ended_by: 'cancelled', detail: 'The task is cancelled.' },
    ]);
  });
});

describe('reading a task', () => {
  test('gives the task, its grants, and of its children what they are', async () => {
    const id = '0198c0de-7a11-7000-8000-00000000000a' as typeof TASK_ID;
    const child = sampleTask({ id, parentId: TASK_ID, state: 'offered' });
    const app = await start({
      useCases: { readTask: async () => ({ task: sampleTask(), grants: [containedGrant()], children: [child] }) },
    });
    const { status, body } = await app.ask('GET', TASK);
    expect(status).toBe(200);
    expect(taskBody.parse(body)).toMatchObject({
      children: [{ id: `task_${id}`, parent_id: `task_${TASK_ID}`, state: 'offered' }],
      grants: [
        {
          state: 'revoked',
          ended_by: 'completed',
          params: { tenant: 'acme' },
          revocation: { state: 'contained', attempts: 1 },
        },
      ],
    });
  });

  test('waits for a change, and answers as soon as there is one', async () => {
    const views = [sampleGrant(), sampleGrant(), containedGrant()];
    let reads = 0;
    const app = await start({
      useCases: {
        readTask: async () => ({
          task: sampleTask(),
          grants: [views[Math.min(reads++, 2)] ?? sampleGrant()],
          children: [],
        }),
      },
    });
    const { body } = await app.ask('GET', `${TASK}?wait=30`);
    expect(reads).toBe(3);
    expect(taskBody.parse(body).grants[0]?.state).toBe('revoked');
  });

  test('does not wait for what can not change any more', async () => {
    let reads = 0;
    const app = await start({
      useCases: {
        readTask: async () => {
          reads += 1;
          return { task: sampleTask({ state: 'completed', endedBy: 'completed' }), grants: [], children: [] };
        },
      },
      wait: () => new Promise(() => {}),
    });
    expect((await app.ask('GET', `${TASK}?wait=60`)).status).toBe(200);
    expect(reads).toBe(1);
  });

  test('gives its evidence in order', async () => {
    const app = await start({
      useCases: {
        readTimeline: async () => [sampleEvent(), sampleEvent({ type: 'task.completed', grantId: GRANT_ID })],
      },
    });
    const { body } = await app.ask('GET', `${TASK}/timeline`);
    expect(timelineBody.parse(body).items).toMatchObject([
      { type: 'task.opened', ts: '2026-11-22T18:00:00.001Z', task_id: `task_${TASK_ID}`, grant_id: null },
      { type: 'task.completed', grant_id: `grt_${GRANT_ID}` },
    ]);
  });
});
