import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const UNKNOWN = 'rev_0198c0de-7a11-7000-8000-0123456789ab';
const PAUSE = '/v1/targets/ledger-db/pause';
const RESUME = '/v1/targets/ledger-db/resume';
const RECONCILE = '/v1/targets/ledger-db/reconcile';
const CHECK = '/v1/targets/ledger-db/check';
const REASON = { reason: 'the target is being moved' };

let house: House;
let operators: Operators;

beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});

describe('who may', () => {
  const calls = (): [string, string, unknown][] => [
    ['GET', '/v1/revocations', undefined],
    ['GET', `/v1/revocations/${UNKNOWN}`, undefined],
    ['POST', `/v1/revocations/${UNKNOWN}/retry`, undefined],
    ['POST', `/v1/revocations/${UNKNOWN}/write-off`, REASON],
    ['POST', PAUSE, REASON],
    ['POST', RESUME, undefined],
    ['GET', '/v1/targets', undefined],
    ['POST', RECONCILE, undefined],
    ['POST', CHECK, undefined],
  ];

  test('no agent does any of it, and nobody without a token', async () => {
    for (const [method, path, body] of calls()) {
      const asked = body === undefined ? {} : { body };
      const agent = await ask(house.url, method, path, { token: await house.token(), ...asked });
      expect([path, agent.status, agent.body['code']]).toEqual([path, 403, 'operator_only']);
      expect([path, (await ask(house.url, method, path, asked)).status]).toEqual([path, 401]);
    }
  });

  test('a viewer looks and does nothing, nor does an auditor', async () => {
    for (const [method, path, body] of calls()) {
      for (const role of ['viewer', 'auditor'] as const) {
        const reply = method === 'GET' ? await operators.get(path, role) : await operators.post(path, body, role);
        const wanted = method === 'POST' ? 403 : path.endsWith(UNKNOWN) ? 404 : 200;
        expect([method, path, reply.status]).toEqual([method, path, wanted]);
      }
    }
    expect(await house.onStore('SELECT FROM mayfly.target_controls WHERE paused')).toEqual([]);
    const acts = `SELECT FROM mayfly.audit_events WHERE type IN ('target.reconcile_asked', 'target.checked')`;
    expect(await house.onStore(acts)).toEqual([]);
  });

  test('an admin does what an operator does', async () => {
    expect((await operators.post(PAUSE, REASON, 'admin')).status).toBe(200);
  });
});

describe('what is not well asked', () => {
  test.each([
    '?colour=red',
    '?state=lost',
    '?state=due&state=clean',
    '?target=Not%20A%20Name',
    '?target=%00',
    '?ended_by=boredom',
    '?task=task_1',
    '?grant=rev_0198c0de-7a11-7000-8000-0123456789ab',
    '?overdue=maybe',
    '?since=yesterday',
    '?limit=0',
    '?limit=201',
    '?limit=1e2',
    '?cursor=xyz',
    '?cursor=%27%20OR%201%3D1%20--%20aaaaaaaa',
  ])('GET /v1/revocations%s is refused', async (query) => {
    const reply = await operators.get(`/v1/revocations${query}`);
    expect([reply.status, reply.body['code']]).toEqual([400, 'invalid_request']);
  });

  test.each([
    [{}],
    [{ reason: '' }],
    [{ reason: '   ' }],
    [{ reason: 'two\nlines' }],
    [{ reason: 'nul \u0000' }],
    [{ reason: 'half a pair \ud800' }],
    [{ reason: 'turned \u202e round' }],
    [{ reason: 'x'.repeat(1001) }],
    [{ reason: 7 }],
    [{ reason: 'good', force: true }],
  ])('a write-off and a pause with %j are refused', async (body) => {
    for (const path of [`/v1/revocations/${UNKNOWN}/write-off`, PAUSE]) {
      const reply = await operators.post(path, body);
      expect([path, reply.status]).toEqual([path, 400]);
    }
  });

  test('a pause that holds deadlines must say `also`, and retry and resume take no members', async () => {
    for (const deadlines of [true, 'held', 'no'])
      expect((await operators.post(PAUSE, { ...REASON, deadlines })).status).toBe(400);
    expect((await operators.post(RESUME, { now: true })).status).toBe(400);
    expect((await operators.post(`/v1/revocations/${UNKNOWN}/retry`, { now: true })).status).toBe(400);
  });

  test('a comparison, a check and the list of targets take what they know and nothing else', async () => {
    for (const path of [`${RECONCILE}?wait=61`, `${RECONCILE}?wait=x`, `${CHECK}?wait=1`, `${RECONCILE}?now=1`])
      expect([path, (await operators.post(path)).status]).toEqual([path, 400]);
    for (const path of [RECONCILE, CHECK]) expect((await operators.post(path, { now: true })).status).toBe(400);
    for (const query of ['?limit=201', '?cursor=%27', '?target=ledger-db'])
      expect([query, (await operators.get(`/v1/targets${query}`)).status]).toEqual([query, 400]);
  });

  test('what is unknown is 404, and so is what is no id', async () => {
    for (const id of [UNKNOWN, UNKNOWN.replace('rev_', 'grt_'), UNKNOWN.toUpperCase(), 'x', '%00', "'"]) {
      expect([id, (await operators.get(`/v1/revocations/${id}`)).status]).toEqual([id, 404]);
      expect([id, (await operators.post(`/v1/revocations/${id}/retry`)).status]).toEqual([id, 404]);
      expect([id, (await operators.post(`/v1/revocations/${id}/write-off`, REASON)).status]).toEqual([id, 404]);
    }
    for (const name of ['no-such-db', 'Ledger-DB', '%00', 'a%2Fb'])
      for (const [act, body] of [['pause', REASON], ['reconcile'], ['check']] as const)
        expect([name, act, (await operators.post(`/v1/targets/${name}/${act}`, body)).status]).toEqual([
          name,
          act,
          404,
        ]);
  });
});
