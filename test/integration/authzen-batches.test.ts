import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask, type Reply } from '../support/ask.ts';
import { ENTITIES, evaluateAs, permitting, SCHEMA, schemaOf, TYPES, vector, vectorsThere } from '../support/authzen.ts';
import { type House, startHouse } from '../support/house.ts';

const PATH = '/access/v1/evaluations';

let house: House;
let subject: { type: string; id: string };
beforeAll(async () => {
  house = await startHouse({
    env: { MAYFLY_EVALUATIONS_PER_CALLER: '400' },
    files: {
      [SCHEMA]: TYPES,
      'entities.yaml': ENTITIES,
      'policies/evaluating.cedar': permitting('open', 'resource is document && resource has open && resource.open'),
    },
  });
  const { task } = await house.client().openTask(await house.sign());
  subject = { type: 'task', id: task.id };
});
afterAll(() => house?.stop());

const evaluate = async (body: object): Promise<Reply> => await evaluateAs(house, 'agent-recon', body, {}, PATH);
const answersOf = ({ body }: Reply) =>
  (body['evaluations'] ?? []) as { decision: boolean; context: Record<string, unknown> }[];
const decisions = (reply: Reply) => answersOf(reply).map(({ decision }) => decision);
const documents = (...ids: string[]) => ids.map((id) => ({ resource: { type: 'document', id } }));
const uses = async () =>
  (
    await house.onStore(`SELECT FROM mayfly.audit_events WHERE type = 'use.evaluated' AND task_id = $1`, [
      subject.id.slice(5),
    ])
  ).length;

describe('several evaluations', () => {
  test.each([
    [undefined, [true, false, true]],
    ['execute_all', [true, false, true]],
    ['deny_on_first_deny', [true, false]],
    ['permit_on_first_permit', [true]],
  ])('with %s come back in order, each of them recorded', async (semantic, expected) => {
    const before = await uses();
    const reply = await evaluate({
      ...{ subject, action: { name: 'read' }, evaluations: documents('1', '2', '3') },
      ...(semantic === undefined ? {} : { options: { evaluations_semantic: semantic } }),
    });
    expect(reply.status).toBe(200);
    expect(decisions(reply)).toEqual(expected);
    expect((await uses()) - before).toBe(expected.length);
    const ids = answersOf(reply).map(({ context }) => context['evaluation_id']);
    expect(new Set(ids).size).toBe(expected.length);
  });

  test('have what stands beside them, unless they have their own: whole members, not parts', async () => {
    const reply = await evaluate({
      ...{ subject, action: { name: 'read' }, resource: { type: 'document', id: '1' }, context: { time: 'now' } },
      evaluations: [
        {},
        { action: { name: 'fly' } },
        { resource: { type: 'document', id: '2' } },
        { resource: { type: 'document' } },
        { subject: { type: 'task', id: 'another' } },
        { context: { time: 5 } },
        { subject: null },
        'read',
      ],
    });
    expect(answersOf(reply).map(({ decision, context }) => [decision, context['code'] ?? context['error']])).toEqual([
      [true, undefined],
      [false, 'not_evaluable'],
      [false, 'denied_by_policy'],
      [false, { status: 400, message: expect.stringContaining('resource.id') }],
      [false, 'not_found'],
      [false, 'not_evaluable'],
      [false, { status: 400, message: expect.stringContaining('subject') }],
      [false, { status: 400, message: expect.any(String) }],
    ]);
  });

  test('without any, the request is one evaluation itself', async () => {
    const one = { subject, action: { name: 'read' }, resource: { type: 'document', id: '1' } };
    for (const body of [one, { ...one, evaluations: [] }]) {
      expect((await evaluate(body)).body).toMatchObject({ decision: true, context: { valid_for_seconds: 10 } });
    }
    expect((await evaluate({ subject, evaluations: [] })).body['code']).toBe('invalid_request');
  });

  test.each([
    ['another semantic', { options: { evaluations_semantic: 'guess' } }, 'invalid_request'],
    ['no list', { evaluations: {} }, 'invalid_request'],
    ['too many', { evaluations: documents(...Array<string>(51).fill('1')) }, 'too_many_evaluations'],
  ])('%s is 400, and nothing is decided', async (_what, more, code) => {
    const before = await uses();
    const reply = await evaluate({ subject, action: { name: 'read' }, evaluations: documents('1'), ...more });
    expect([reply.status, reply.body['code']]).toEqual([400, code]);
    expect(await uses()).toBe(before);
  });
});

describe.skipIf(!vectorsThere)('the specification’s requests', () => {
  const requests = [5, 6, 7, 8, 10, 12].map((n) => {
    const names = [
      'no-defaults',
      'default-subject-context',
      'default-overridden',
      'execute-all',
      '',
      'deny-on-first-deny',
      '',
      'permit-on-first-permit',
    ];
    return `${String(n).padStart(2, '0')}-evaluations-request-${names[n - 5] ?? ''}.json`;
  });

  test.each(requests)('%s is answered as its schema says', async (name) => {
    const { evaluations } = vector(`requests/${name}`) as { evaluations: unknown[] };
    const reply = await evaluate(vector(`requests/${name}`));
    expect(reply.status).toBe(200);
    for (const answer of answersOf(reply)) schemaOf('response').parse(answer);
    // An agent is told nothing of users.
    expect(decisions(reply)).toEqual(name.includes('deny-on') ? [false] : evaluations.map(() => false));
  });

  test.each([
    ['08-evaluations-request-execute-all', '09-evaluations-response-execute-all'],
    ['10-evaluations-request-deny-on-first-deny', '11-evaluations-response-deny-on-first-deny'],
    ['12-evaluations-request-permit-on-first-permit', '13-evaluations-response-permit-on-first-permit'],
  ])('%s has the decisions of its example, for a task', async (request, response) => {
    const reply = await evaluate({ ...vector(`requests/${request}.json`), subject });
    const example = vector(`requests/${response}.json`) as { evaluations: { decision: boolean }[] };
    expect(decisions(reply)).toEqual(example.evaluations.map(({ decision }) => decision));
  });
});

test('the metadata names both endpoints', async () => {
  const { status, body } = await ask(house.url, 'GET', '/.well-known/authzen-configuration');
  expect([status, body]).toEqual([
    200,
    {
      policy_decision_point: house.url,
      access_evaluation_endpoint: `${house.url}/access/v1/evaluation`,
      access_evaluations_endpoint: `${house.url}${PATH}`,
    },
  ]);
});

test('who asks without end is told when to come back, and each evaluation counts', async () => {
  const body = { subject, action: { name: 'read' }, evaluations: documents(...Array<string>(50).fill('1')) };
  const replies: Reply[] = [];
  for (let n = 0; n < 9; n++) {
    const reply = await evaluateAs(house, 'agent-support', body, {}, PATH);
    replies.push(reply);
  }
  expect(replies.map(({ status }) => status)).toEqual([...Array<number>(8).fill(200), 429]);
  const seconds = Number(replies.at(-1)?.headers['retry-after']);
  expect([replies.at(-1)?.body['code'], seconds >= 1 && seconds <= 60]).toEqual(['too_many_calls', true]);
});
