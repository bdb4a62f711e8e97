import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DelegatedTask } from '../broker/delegate-task.ts';
import type { TakenEvent } from '../broker/take-event.ts';
import type { TaskId } from '../domain/ids.ts';
import { claimedBody, delegatedBody, problemBody, takenEventBody } from './answers.ts';
import { containedGrant, GRANT_ID, sampleGrant, sampleTask, TASK_ID } from './testing/samples.ts';
import { startTestApp, type TestApp } from './testing/test-app.ts';

const CHILD = '0198c0de-7a11-7000-8000-00000000000a' as TaskId;
const child = sampleTask({ id: CHILD, parentId: TASK_ID, state: 'offered' });
const PARENT = `/v1/tasks/task_${TASK_ID}`;

let app: TestApp;
let delegated: DelegatedTask;
let taken: TakenEvent;
let grants = [sampleGrant()];
beforeAll(async () => {
  app = await startTestApp({
    useCases: {
      delegateTask: async () => delegated,
      claimTask: async () => child,
      takeEvent: async () => taken,
      viewTask: async () => ({ task: { ...child, state: 'active' }, grants: [], children: [] }),
      waitContained: async () => grants,
    },
  });
});
afterAll(() => app.stop());
beforeEach(() => {
  delegated = { task: child, replayed: false, cut: null };
  taken = { task: sampleTask({ state: 'completed', endedBy: 'completed' }), grants };
  grants = [sampleGrant()];
});

describe('delegating', () => {
  const delegate = () => app.ask('POST', `${PARENT}/children`, { body: { delegation: 'a.b.c' } });

  test('answers 201 with the child and where it is, and nothing that it holds', async () => {
    const { status, headers, body } = await delegate();
    expect([status, headers.location]).toEqual([201, `/v1/tasks/task_${CHILD}`]);
    const { task, cut } = delegatedBody.parse(body);
    expect([task.id, task.parent_id, task.state, cut]).toEqual([
      ...[`task_${CHILD}`, `task_${TASK_ID}`, 'offered', undefined],
    ]);
  });

  test('says what was cut, one or the other or both', async () => {
    const askedNotAfter = new Date('2026-11-23T00:00:00Z');
    for (const [cut, told] of [
      [{ askedNotAfter }, { asked_not_after: '2026-11-23T00:00:00.000Z' }],
      [{ askedMaxTtlSeconds: 600 }, { asked_max_ttl_seconds: 600 }],
      [
        { askedNotAfter, askedMaxTtlSeconds: 600 },
        { asked_not_after: '2026-11-23T00:00:00.000Z', asked_max_ttl_seconds: 600 },
      ],
    ] as const) {
      delegated = { task: child, replayed: false, cut };
      expect(delegatedBody.parse((await delegate()).body).cut).toEqual(told);
    }
  });

  test('answers 200 where it was done before', async () => {
    delegated = { task: child, replayed: true, cut: null };
    const { status, headers } = await delegate();
    expect([status, headers.location]).toEqual([200, undefined]);
  });
});

test('claiming answers 200 with the task', async () => {
  for (const body of [undefined, {}]) {
    const reply = await app.ask('POST', `/v1/tasks/task_${CHILD}/claim`, { body });
    expect([reply.status, claimedBody.parse(reply.body).task.state]).toEqual([200, 'active']);
  }
});

describe('an event', () => {
  const tell = (query = '') => app.ask('POST', `${PARENT}/events${query}`, { body: { event: 'a.b.c' } });

  test('of an end is answered 202, with how far it is and not with what it was', async () => {
    const { status, body, text } = await tell();
    const { task, revocations } = takenEventBody.parse(body);
    expect([status, task.state, revocations?.map(({ state }) => state)]).toEqual([202, 'completed', ['scheduled']]);
    expect(text).not.toContain(GRANT_ID);
  });

  test('of an end is answered 200 once all is contained, where that was waited for', async () => {
    expect((await tell('?wait=1')).status).toBe(202);
    grants = [containedGrant()];
    expect((await tell('?wait=1')).status).toBe(200);
    expect((await tell()).status).toBe(202);
  });

  test('of a phase is answered 200', async () => {
    taken = { task: sampleTask({ phase: 'closing' }), grants: null };
    const { status, body } = await tell('?wait=1');
    expect([status, takenEventBody.parse(body)]).toEqual([
      200,
      { task: expect.objectContaining({ phase: 'closing' }) },
    ]);
  });
});

test.each([
  ['children', 'delegation', delegatedBody],
  ['events', 'event', takenEventBody],
])('no body makes a fault of ours: %s', async (path, member, schema) => {
  const likely = fc.record({ [member]: fc.string({ unit: 'binary' }), other: fc.jsonValue() }, { requiredKeys: [] });
  await fc.assert(
    fc.asyncProperty(fc.oneof(likely, fc.jsonValue()), async (sent) => {
      const { status, body } = await app.ask('POST', `${PARENT}/${path}`, { body: JSON.stringify(sent) });
      expect(status).toBeLessThan(500);
      expect((status >= 400 ? problemBody : schema).safeParse(body).success).toBe(true);
    }),
    { numRuns: 100 },
  );
});
