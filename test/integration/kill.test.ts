import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { killsPageBody, type KillView, killView } from '../../src/http/kill-bodies.ts';
import { ask, type Reply } from '../support/ask.ts';
import { Agent, outcome } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const INVOICES = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';
const REASON = { reason: 'its key was seen in a paste' };
const UNKNOWN = '0198c0de-7a11-7000-8000-0123456789ab';
const WAIT = { timeout: 60_000, interval: 25 };

let house: House;
let operators: Operators;
let issuer: string;

beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
  issuer = /issuer: (\S+\/orchestrator),/.exec(house.files['trust.yaml'] ?? '')?.[1] ?? '';
});
afterAll(async () => {
  await house?.stop();
});
afterEach(async () => {
  for (const { id } of (await list('?standing=true')).items) await lift(id);
  await operators.post('/v1/targets/ledger-db/resume');
});

const raise = async (body: object): Promise<Reply> => await operators.post('/v1/kill', { ...REASON, ...body });
const raised = async (body: object): Promise<KillView> => {
  const reply = await raise(body);
  expect([reply.status, reply.body['code']]).toEqual([201, undefined]);
  return killView.parse(reply.body);
};
const lift = async (id: string, body?: object): Promise<Reply> =>
  await ask(house.url, 'DELETE', `/v1/kill/${id}`, { token: await operators.token('operator'), ...(body && { body }) });
const list = async (query = '') => killsPageBody.parse((await operators.get(`/v1/kill${query}`)).body);

interface Held {
  readonly task: string;
  readonly grants: readonly string[];
}

/** A task of that workload, and a grant of each of the two entitlements. */
async function holding(workload: string): Promise<Held> {
  const client = house.client(workload);
  const request = await house.sign({ workload, phase: 'execute', entitlements: [INVOICES, PAYMENTS] });
  const { task } = await client.openTask(request);
  const grants = await Promise.all(
    [INVOICES, PAYMENTS].map(async (entitlement) => (await client.issue(task.id, { entitlement })).grant.id),
  );
  return { task: task.id, grants };
}

async function issue(task: string, entitlement: string, workload = 'agent-recon'): Promise<Reply> {
  const token = await house.token(workload);
  return await ask(house.url, 'POST', `/v1/tasks/${task}/grants`, { token, body: { entitlement } });
}

async function open(workload = 'agent-recon'): Promise<Reply> {
  const request = await house.sign({ workload, phase: 'execute', entitlements: [INVOICES, PAYMENTS] });
  return await ask(house.url, 'POST', '/v1/tasks', { token: await house.token(workload), body: { request } });
}

const taskOf = (reply: Reply): string => String(Object(reply.body['task'])['id']);
const stateOf = async (task: string) =>
  (await house.onStore('SELECT state, ended_by FROM mayfly.tasks WHERE id = $1', [task.slice(5)]))[0];
const grantsOf = async ({ grants }: Held) =>
  await house.onStore<{ state: string; ended_by: string | null }>(
    'SELECT state, ended_by FROM mayfly.grants WHERE id = ANY($1) ORDER BY entitlement',
    [grants.map((id) => id.slice(4))],
  );
/** Roles of these grants that can log in to the target. */
const living = async ({ grants }: Held): Promise<number> =>
  (
    await house.onTarget('SELECT FROM pg_roles WHERE rolcanlogin AND rolname = ANY($1)', [
      grants.map((id) => `mfy_${id.slice(4).replaceAll('-', '')}`),
    ])
  ).length;
const gone = async (held: Held): Promise<void> =>
  await vi.waitFor(async () => {
    expect((await grantsOf(held)).map(({ state }) => state)).toEqual(['revoked', 'revoked']);
    expect(await living(held)).toBe(0);
  }, WAIT);

describe('what a kill names is stopped, and nothing else', () => {
  test('an agent', async () => {
    const [own, other] = [await holding('agent-recon'), await holding('agent-support')];
    expect(await living(own)).toBe(2);
    const kill = await raised({ scope: 'agent', id: 'dev:agent-recon' });
    expect(kill).toMatchObject({
      scope: 'agent',
      subject: 'dev:agent-recon',
      standing: true,
      by: 'dev-operators:olga',
    });
    expect(kill.ended).toEqual({ tasks: 1, grants: 2, hastened: 0 });
    expect(await stateOf(own.task)).toEqual({ state: 'revoked', ended_by: 'operator' });
    expect((await grantsOf(own)).map((grant) => grant.ended_by)).toEqual(['operator', 'operator']);
    await gone(own);
    expect(outcome(await open())).toEqual([403, 'killed']);
    expect(outcome(await issue(own.task, INVOICES))).toEqual([403, 'killed']);

    expect(await stateOf(other.task)).toEqual({ state: 'active', ended_by: null });
    expect((await issue(other.task, INVOICES, 'agent-support')).status).toBe(201);
    expect((await open('agent-support')).status).toBe(201);
  });

  test.each(['name', 'URL'])('a task issuer, by its %s', async (by) => {
    const held = [await holding('agent-recon'), await holding('agent-support')];
    const kill = await raised({ scope: 'issuer', id: by === 'URL' ? issuer : 'dev-orchestrator' });
    expect(kill.subject).toBe(issuer);
    for (const one of held) {
      expect(await stateOf(one.task)).toEqual({ state: 'revoked', ended_by: 'operator' });
      await gone(one);
    }
    expect(outcome(await open())).toEqual([403, 'killed']);
  });

  test('a task, with which its own workload goes on', async () => {
    const [own, other] = [await holding('agent-recon'), await holding('agent-recon')];
    const kill = await raised({ scope: 'task', id: own.task });
    expect(kill.ended).toEqual({ tasks: 1, grants: 2, hastened: 0 });
    await gone(own);
    expect(outcome(await issue(own.task, INVOICES))).toEqual([403, 'killed']);
    expect((await issue(other.task, INVOICES)).status).toBe(201);
    await lift(kill.id);
    // It has ended for good.
    expect(outcome(await issue(own.task, INVOICES))).toEqual([409, 'task_ended']);
  });

  test('an entitlement: its grants end, tasks live on', async () => {
    const held = await holding('agent-recon');
    const kill = await raised({ scope: 'entitlement', id: PAYMENTS });
    expect(kill.ended).toMatchObject({ tasks: 0 });
    expect(kill.ended.grants).toBeGreaterThanOrEqual(1);
    expect(await stateOf(held.task)).toEqual({ state: 'active', ended_by: null });
    const left = [
      { state: 'active', ended_by: null },
      { state: 'revoked', ended_by: 'operator' },
    ];
    await vi.waitFor(async () => expect(await grantsOf(held)).toEqual(left), WAIT);
    expect(await living(held)).toBe(1);
    expect(outcome(await issue(held.task, PAYMENTS))).toEqual([403, 'killed']);
    expect((await issue(held.task, INVOICES)).status).toBe(201);
    await lift(kill.id);
    expect((await issue(held.task, PAYMENTS)).status).toBe(201);
  });

  test('a target: its grants end, tasks live on', async () => {
    const held = await holding('agent-recon');
    const kill = await raised({ scope: 'target', id: 'ledger-db' });
    expect(kill.ended.tasks).toBe(0);
    await gone(held);
    expect((await grantsOf(held)).map((grant) => grant.ended_by)).toEqual(['operator', 'operator']);
    for (const entitlement of [INVOICES, PAYMENTS])
      expect(outcome(await issue(held.task, entitlement))).toEqual([403, 'killed']);
    expect((await open()).status).toBe(201);
    await lift(kill.id);
    expect((await issue(held.task, INVOICES)).status).toBe(201);
  });

  test('all', async () => {
    const held = [await holding('agent-recon'), await holding('agent-support')];
    const kill = await raised({ scope: 'all' });
    expect(kill).toMatchObject({ scope: 'all', subject: null });
    for (const one of held) await gone(one);
    for (const workload of ['agent-recon', 'agent-support'])
      expect(outcome(await open(workload))).toEqual([403, 'killed']);
    expect(await house.onStore(`SELECT FROM mayfly.tasks WHERE ended_at IS NULL`)).toEqual([]);
    expect(await house.onStore(`SELECT FROM mayfly.grants WHERE state IN ('minting', 'active')`)).toEqual([]);
  });
});

test('a lifted kill lets everything be asked for again; what it ended stays ended', async () => {
  const held = await holding('agent-recon');
  const kill = await raised({ scope: 'all' });
  expect(outcome(await open())).toEqual([403, 'killed']);
  const said = await lift(kill.id, { reason: 'the key was changed' });
  expect(said.status).toBe(200);
  const lifted = killView.parse(said.body);
  expect(lifted).toMatchObject({ id: kill.id, standing: false, reason: REASON.reason });
  expect(lifted.lifted).toMatchObject({ by: 'dev-operators:olga', reason: 'the key was changed' });
  const again = await open();
  expect(again.status).toBe(201);
  expect((await issue(taskOf(again), INVOICES)).status).toBe(201);
  expect(outcome(await issue(held.task, INVOICES))).toEqual([409, 'task_ended']);
  // Said again it answers the same, and nothing is told twice.
  expect(killView.parse((await lift(kill.id, { reason: 'another' })).body)).toEqual(lifted);
  expect(await wordsOf(kill.id)).toEqual(['kill.raised', 'kill.lifted']);
});

async function told(kill: string) {
  return await house.onStore<{ type: string; payload: Record<string, unknown>; task_id: string | null }>(
    `SELECT type, resource, cause, task_id, payload FROM mayfly.audit_events WHERE payload->>'kill_id' = $1 ORDER BY ts, id`,
    [kill],
  );
}

const wordsOf = async (kill: string) =>
  (await told(kill)).map(({ type }) => type).filter((type) => type.startsWith('kill.'));

test('what is killed already stays killed by the first word', async () => {
  const kill = await raised({ scope: 'agent', id: 'dev:agent-recon' });
  const again = await raise({ scope: 'agent', id: 'dev:agent-recon', reason: 'another reason' });
  expect([again.status, killView.parse(again.body)]).toEqual([200, kill]);
  expect(await wordsOf(kill.id)).toEqual(['kill.raised']);
  await lift(kill.id);
  const later = await raise({ scope: 'agent', id: 'dev:agent-recon', reason: 'another reason' });
  expect([later.status, killView.parse(later.body).reason]).toEqual([201, 'another reason']);
});

test('two kills over one thing: it goes on once neither stands', async () => {
  const agent = await raised({ scope: 'agent', id: 'dev:agent-recon' });
  const all = await raised({ scope: 'all' });
  await lift(agent.id);
  expect(outcome(await open())).toEqual([403, 'killed']);
  await lift(all.id);
  expect((await open()).status).toBe(201);
});

describe('delegated tasks', () => {
  let owner: Agent;
  let other: Agent;
  beforeAll(async () => {
    owner = await Agent.make(house);
    other = await Agent.make(house, 'agent-support');
  });

  test('end with the one that they hang on, claimed or not, whoever holds them', async () => {
    const parent = await owner.open();
    const child = await owner.beget(parent, other, { maxDepth: 1 });
    const grandchild = await other.delegate(child, owner);
    const { grant } = await other.client().issue(child.id, { entitlement: INVOICES });
    const kill = await raised({ scope: 'task', id: parent.id });
    expect(kill.ended).toEqual({ tasks: 3, grants: 1, hastened: 0 });
    expect(await stateOf(parent.id)).toEqual({ state: 'revoked', ended_by: 'operator' });
    expect(await stateOf(child.id)).toEqual({ state: 'revoked', ended_by: 'parent_ended' });
    expect(await stateOf(grandchild.id)).toEqual({ state: 'cancelled', ended_by: 'parent_ended' });
    await vi.waitFor(async () => expect((await other.client().grant(grant.id)).state).toBe('revoked'), WAIT);
    expect((await other.client().grant(grant.id)).ended_by).toBe('parent_ended');
    expect(outcome(await owner.call('POST', `/v1/tasks/${grandchild.id}/claim`, {}))).toEqual([409, 'task_ended']);
  });

  test('of a killed agent end, and what they hang on lives', async () => {
    const parent = await owner.open();
    const claimed = await owner.beget(parent, other);
    const offered = await owner.delegate(parent, other);
    const kill = await raised({ scope: 'agent', id: 'dev:agent-support' });
    expect(kill.ended.tasks).toBe(2);
    expect(await stateOf(parent.id)).toEqual({ state: 'active', ended_by: null });
    expect(await stateOf(claimed.id)).toEqual({ state: 'revoked', ended_by: 'operator' });
    expect(await stateOf(offered.id)).toEqual({ state: 'cancelled', ended_by: 'operator' });
    expect(outcome(await other.call('POST', `/v1/tasks/${offered.id}/claim`, {}))).toEqual([403, 'killed']);
    // Nor is it given anything new.
    const delegation = await owner.offerOf(parent, other);
    const asked = await owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation });
    expect(outcome(asked)).toEqual([403, 'killed']);
    await lift(kill.id);
    expect((await owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation })).status).toBe(201);
  });

  test('are offered by nobody while all is stopped', async () => {
    const parent = await owner.open();
    const delegation = await owner.offerOf(parent, other);
    await raised({ scope: 'all' });
    const asked = await owner.call('POST', `/v1/tasks/${parent.id}/children`, { delegation });
    expect(outcome(asked)).toEqual([403, 'killed']);
  });
});

test('a suspended task is ended too', async () => {
  const { task } = await holding('agent-recon');
  await house.onStore(`UPDATE mayfly.tasks SET state = 'suspended' WHERE id = $1`, [task.slice(5)]);
  await raised({ scope: 'task', id: task });
  expect(await stateOf(task)).toEqual({ state: 'revoked', ended_by: 'operator' });
});

test('nothing is renewed on a killed target, and nobody replaces it by a repeated key', async () => {
  const { task } = await holding('agent-recon');
  const token = await house.token();
  const headers = { 'Idempotency-Key': 'once' };
  const ask1 = () =>
    ask(house.url, 'POST', `/v1/tasks/${task}/grants`, { token, headers, body: { entitlement: INVOICES } });
  const first = await ask1();
  const grant = String(Object(first.body['grant'])['id']);
  // Held where the kill can not end it, so that only the block is in its way.
  await house.onStore(
    `INSERT INTO mayfly.kills VALUES ($1, 'target', 'ledger-db', '{ledger-db}', 'r', 'ops:omar', clock_timestamp(), 0, 0, 0)`,
    ['0198c0de-7a11-7000-8000-0123456789ac'],
  );
  const renewed = await ask(house.url, 'POST', `/v1/grants/${grant}/renew`, { token, body: { ttl_seconds: 60 } });
  expect(outcome(renewed)).toEqual([403, 'killed']);
  expect(outcome(await ask1())).toEqual([403, 'killed']);
  expect((await house.client().grant(grant)).state).toBe('active');
  await house.onStore(`UPDATE mayfly.kills SET scope = 'agent', subject = 'dev:agent-recon'`);
  expect(
    outcome(await ask(house.url, 'POST', `/v1/grants/${grant}/renew`, { token, body: { ttl_seconds: 60 } })),
  ).toEqual([403, 'killed']);
});

describe('a paused target', () => {
  test.each([{}, { deadlines: 'also' }])('does not hold back what a kill ends, paused with %j', async (how) => {
    // What earlier tests left would be counted.
    await lift((await raised({ scope: 'all' })).id);
    await vi.waitFor(
      async () =>
        expect(await house.onStore(`SELECT FROM mayfly.revocations WHERE state IN ('due', 'running')`)).toEqual([]),
      WAIT,
    );
    const [early, late, spared] = [
      await holding('agent-recon'),
      await holding('agent-recon'),
      await holding('agent-support'),
    ];
    await operators.post('/v1/targets/ledger-db/pause', { reason: 'it is being moved', ...how });
    for (const held of [early, spared]) await operators.post(`/v1/tasks/${held.task}/cancel`);
    const kill = await raised({ scope: 'agent', id: 'dev:agent-recon' });
    // One that had ended before was held back.
    expect(kill.ended).toMatchObject({ grants: 2, hastened: 2 });
    for (const held of [early, late]) await gone(held);
    expect((await grantsOf(spared)).map(({ state }) => state)).toEqual(['revoking', 'revoking']);
    expect(await living(spared)).toBe(2);
    await operators.post('/v1/targets/ledger-db/resume');
    await gone(spared);
  });
});

describe('the evidence', () => {
  test('tells of the kill with what it ended, and of each end which kill it was', async () => {
    const { task, grants } = await holding('agent-recon');
    const kill = await raised({ scope: 'task', id: task });
    const events = await told(kill.id);
    expect(events.map(({ type }) => type).sort()).toEqual([
      'grant.ended',
      'grant.ended',
      'kill.raised',
      'task.revoked',
    ]);
    const [first] = events.filter(({ type }) => type === 'kill.raised');
    expect(first).toMatchObject({ resource: task, task_id: null });
    expect(first?.payload).toEqual({
      ...{ kill_id: kill.id, scope: 'task', subject: task, ...REASON, tasks: 1, grants: 2, hastened: 0 },
      by: 'dev-operators:olga',
    });
    const ends = events.filter(({ type }) => type === 'grant.ended');
    expect(ends).toMatchObject(grants.map(() => ({ cause: 'operator', task_id: task.slice(5) })));
    expect(events.find(({ type }) => type === 'task.revoked')).toMatchObject({
      ...{ cause: 'operator', payload: { kill_id: kill.id } },
    });
    await lift(kill.id, { reason: 'a mistake' });
    const lifted = (await told(kill.id)).find(({ type }) => type === 'kill.lifted');
    expect(lifted?.payload).toMatchObject({ reason: 'a mistake', by: 'dev-operators:olga', raised_by: kill.by });
    // Both are for the webhook.
    const notices = await house.onStore<{ type: string }>(
      `SELECT e.type FROM mayfly.notices n JOIN mayfly.audit_events e ON e.id = n.event_id WHERE e.payload->>'kill_id' = $1 ORDER BY e.ts`,
      [kill.id],
    );
    expect(notices.map(({ type }) => type)).toEqual(['kill.raised', 'kill.lifted']);
  });

  test('does not tell the owner who stopped it, why, or by which word', async () => {
    const { task } = await holding('agent-recon');
    const kill = await raised({ scope: 'agent', id: 'dev:agent-recon' });
    const path = `/v1/tasks/${task}/timeline`;
    const owners = await ask(house.url, 'GET', path, { token: await house.token() });
    const auditors = await operators.get(path, 'auditor');
    const refused = await issue(task, INVOICES);
    for (const { text } of [owners, refused])
      for (const secret of [kill.id, REASON.reason, 'olga', 'scope']) expect(text).not.toContain(secret);
    expect(owners.text).toContain('task.revoked');
    expect(auditors.text).toContain(kill.id);
  });
});

test('the kills are listed, the latest first, in pages, and counted', async () => {
  const kills = [
    await raised({ scope: 'entitlement', id: INVOICES }),
    await raised({ scope: 'entitlement', id: PAYMENTS }),
    await raised({ scope: 'target', id: 'ledger-db' }),
  ];
  const [one, two, three] = kills.map(({ id }) => id);
  await lift(two ?? '');
  const page = await list('?limit=2');
  expect(page.items.map(({ id }) => id)).toEqual([three, two]);
  const next = await list(`?limit=2&cursor=${page.next_cursor}`);
  expect(next.items[0]?.id).toBe(one);
  expect((await list('?standing=true')).items.map(({ id }) => id)).toEqual([three, one]);
  expect((await list('?standing=false&limit=1')).items.map(({ id }) => id)).toEqual([two]);
  await vi.waitFor(async () => {
    const { text } = await ask(house.url, 'GET', '/metrics');
    for (const line of ['entitlement"} 1', 'target"} 1', 'all"} 0'])
      expect(text).toContain(`mayfly_kills_standing{scope="${line}`);
  }, WAIT);
});

describe('what is not well asked', () => {
  test.each([
    [{}],
    [{ scope: 'galaxy' }],
    [{ scope: 'agent' }],
    [{ scope: 'agent', id: '' }],
    [{ scope: 'agent', id: 'no-source' }],
    [{ scope: 'agent', id: 'dev:two\nlines' }],
    [{ scope: 'agent', id: `dev:${'é'.repeat(1_100)}` }],
    [{ scope: 'agent', id: 7 }],
    [{ scope: 'all', id: 'x' }],
    [{ scope: 'task', id: UNKNOWN }],
    [{ scope: 'task', id: `grt_${UNKNOWN}` }],
    [{ scope: 'entitlement', id: 'ledger-db' }],
    [{ scope: 'target', id: 'Ledger DB' }],
    [{ scope: 'target', id: 'ledger-db', force: true }],
    [{ scope: 'all', reason: '' }],
    [{ scope: 'all', reason: 'two\nlines' }],
    [{ scope: 'all', reason: 'x'.repeat(1_001) }],
    [{ scope: 'all', reason: undefined }],
    ['all'],
    [[]],
  ])('a kill of %j is refused', async (body) => {
    const sent = typeof body === 'string' || Array.isArray(body) ? JSON.stringify(body) : { ...REASON, ...body };
    const reply = await operators.post('/v1/kill', sent);
    expect([reply.status, reply.text.includes('invalid_request') || reply.text.includes('malformed_json')]).toEqual([
      400,
      true,
    ]);
    expect((await list('?standing=true')).items).toEqual([]);
  });

  test.each([
    [{ scope: 'task', id: `task_${UNKNOWN}` }],
    [{ scope: 'agent', id: 'nobody:agent-recon' }],
    [{ scope: 'issuer', id: 'https://nobody.example' }],
    [{ scope: 'entitlement', id: 'ledger-db/no-such' }],
    [{ scope: 'target', id: 'no-such-db' }],
  ])('a kill of %j, which would stop nothing, is 404', async (body) => {
    expect(outcome(await raise(body))).toEqual([404, 'not_found']);
    expect((await list('?standing=true')).items).toEqual([]);
  });

  test('an agent that has never asked is killed before it does', async () => {
    const kill = await raised({ scope: 'agent', id: 'dev:agent-of-tomorrow' });
    expect(kill.ended).toEqual({ tasks: 0, grants: 0, hastened: 0 });
  });

  test('what the catalog has dropped is killed while something of it lives', async () => {
    await house.onStore(`UPDATE mayfly.grants SET target = 'a-dropped-db' WHERE id = $1`, [
      (await holding('agent-recon')).grants[0]?.slice(4),
    ]);
    try {
      expect((await raised({ scope: 'target', id: 'a-dropped-db' })).ended.grants).toBe(1);
    } finally {
      await house.onStore(`UPDATE mayfly.grants SET target = 'ledger-db' WHERE target = 'a-dropped-db'`);
    }
  });

  test('what is no kill can not be lifted, and lifting takes a reason and nothing else', async () => {
    for (const id of [`kill_${UNKNOWN}`, `task_${UNKNOWN}`, 'x', '%00'])
      expect([id, ...outcome(await lift(id))]).toEqual([id, 404, 'not_found']);
    const kill = await raised({ scope: 'all' });
    for (const body of [{ reason: '' }, { reason: 'x'.repeat(1_001) }, { force: true }])
      expect(outcome(await lift(kill.id, body))).toEqual([400, 'invalid_request']);
    expect((await list('?standing=true')).items).toHaveLength(1);
  });

  test.each(['?standing=maybe', '?limit=0', '?limit=201', '?cursor=xyz', '?scope=all'])(
    'GET /v1/kill%s is refused',
    async (query) => {
      expect(outcome(await operators.get(`/v1/kill${query}`))).toEqual([400, 'invalid_request']);
    },
  );
});
