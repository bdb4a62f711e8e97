import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskBody, TaskStanding } from '../../src/client/index.ts';
import { reachBody } from '../../src/http/reach-bodies.ts';
import { ask } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { Agent } from '../support/delegating.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const READ = 'ledger-db/read-invoices';
const PAY = 'ledger-db/read-payments';
const GONE = 'ledger-db/read-nothing';
const POLICIES = 'policies/test.cedar';
const WORKLOAD = '/v1/workloads/dev%3Aagent-recon/reach';

let house: House;
let files: Readonly<Record<string, string>>;
let owner: Agent;
let other: Agent;
/** Executing: both entitlements are permitted, and one that nobody knows is not. */
let executing: TaskBody;
/** Planning: payments are denied. */
let planning: TaskBody;
/** Another workload's, below the one that executes. */
let child: TaskStanding;

beforeAll(async () => {
  house = await startHouse({ proofOfPossession: 'required' });
  // What is held here outlives the tests.
  const longer = (house.files[POLICIES] ?? '').replaceAll(/@max_ttl\("\dm"\)/g, '@max_ttl("10m")');
  files = { ...house.files, [POLICIES]: longer };
  await house.broker.apply(files);
  owner = await Agent.make(house);
  other = await Agent.make(house, 'agent-support');
  executing = await owner.open({ phase: 'execute', entitlements: [READ, PAY, GONE], maxDepth: 1 });
  planning = await owner.open({ phase: 'plan', entitlements: [READ, PAY] });
  child = await owner.beget(executing, other, { entitlements: [READ, PAY] });
  for (const name of [READ, READ, PAY]) await owner.client().issue(executing.id, { entitlement: name });
  await other.client().issue(child.id, { entitlement: READ });
});
afterAll(async () => {
  await house?.stop();
});

const reach = async (path: string) => {
  const reply = await operatorsOf(house).get(path);
  expect([reply.status, reply.body['code']]).toEqual([200, undefined]);
  return reachBody.parse(reply.body);
};
type Item = Awaited<ReturnType<typeof reach>>['items'][number];
const told = ({ task_id: id, workload, holds, could }: Item) => ({
  ...{ id, workload, holds: holds.items.map(({ entitlement, state }) => `${entitlement} ${state}`).toSorted() },
  could: could.map(({ entitlement, answer, because }) => [entitlement, because ?? answer]),
});
const BOTH = [
  [READ, 'permitted'],
  [PAY, 'permitted'],
];

describe('everything that is reached', () => {
  test('by a workload: its tasks with what they delegated to, what each holds, and what it could ask for', async () => {
    const { items, ...of } = await reach(WORKLOAD);
    expect(of).toMatchObject({ of: 'workload', id: 'dev:agent-recon', tasks: 3, grants: 4, next_cursor: null });
    const holding = [`${READ} active`, `${READ} active`, `${PAY} active`];
    expect(items.map(told)).toEqual([
      { id: executing.id, workload: 'dev:agent-recon', holds: holding, could: [...BOTH, [GONE, 'not_in_task']] },
      {
        id: planning.id,
        workload: 'dev:agent-recon',
        holds: [],
        could: [
          [READ, 'permitted'],
          [PAY, 'denied_by_policy'],
        ],
      },
      { id: child.id, workload: 'dev:agent-support', holds: [`${READ} active`], could: BOTH },
    ]);
    expect(items[0]?.could[0]).toMatchObject({
      policies: ['read-invoices'],
      ttl_seconds: 600,
      obligations: [],
      reasons: [],
    });
    expect(items[2]?.task).toMatchObject({ state: 'active', phase: 'execute', parent_id: executing.id });
  });

  test('is what an ask then says', async () => {
    const { items } = await reach(WORKLOAD);
    const outcomes = [];
    for (const item of items) {
      const agent = item.workload === 'dev:agent-recon' ? owner : other;
      for (const { entitlement, because, ttl_seconds: foreseen } of item.could) {
        const issued = await agent.call('POST', `/v1/tasks/${item.task_id}/grants`, { entitlement });
        const code = issued.body['code'] ?? null;
        outcomes.push([entitlement, code]);
        expect([entitlement, code]).toEqual([entitlement, because]);
        if (foreseen === null) continue;
        const grant = Object(issued.body['grant']);
        const life = (Date.parse(grant['deadline']) - Date.parse(grant['created_at'])) / 1000;
        expect(life).toBe(foreseen);
        await agent.call('DELETE', `/v1/grants/${grant['id']}`);
      }
    }
    expect(outcomes).toHaveLength(7);
    // What was released is held until it is taken back.
    await expect.poll(async () => (await reach(WORKLOAD)).grants).toBe(4);
  });

  test('by a task: that, and what hangs on it', async () => {
    const all = await reach(`/v1/tasks/${executing.id}/reach`);
    expect([all.of, all.id, all.items.map(({ task_id: id }) => id)]).toEqual([
      'task',
      executing.id,
      [executing.id, child.id],
    ]);
    expect((await reach(`/v1/tasks/${child.id}/reach`)).items.map(told)).toEqual([
      expect.objectContaining({ id: child.id, could: BOTH }),
    ]);
  });

  test('of an entitlement: who holds it, and who could ask for it', async () => {
    const { items, tasks } = await reach(`/v1/entitlements/${PAY}/reach`);
    expect(tasks).toBe(3);
    expect(items.map(told)).toEqual([
      { id: executing.id, workload: 'dev:agent-recon', holds: [`${PAY} active`], could: [[PAY, 'permitted']] },
      { id: planning.id, workload: 'dev:agent-recon', holds: [], could: [[PAY, 'denied_by_policy']] },
      { id: child.id, workload: 'dev:agent-support', holds: [], could: [[PAY, 'permitted']] },
    ]);
  });

  test('page by page it is the same', async () => {
    const whole = await reach(WORKLOAD);
    const ids: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: Awaited<ReturnType<typeof reach>> = await reach(
        `${WORKLOAD}?limit=1${cursor && `&cursor=${cursor}`}`,
      );
      expect([page.items.length, page.tasks, page.grants]).toEqual([1, 3, whole.grants]);
      ids.push(...page.items.map(({ task_id: id }) => id));
      cursor = page.next_cursor;
    }
    expect(ids).toEqual(whole.items.map(({ task_id: id }) => id));
  });
});

test('what is over is shown for as long as something of it can be used', async () => {
  const task = await owner.open({ phase: 'plan', entitlements: [READ] });
  await owner.client().issue(task.id, { entitlement: READ });
  await operatorsOf(house).post('/v1/targets/ledger-db/pause', { reason: 'test' });
  await owner.client().cancel(task.id);
  expect((await reach(`/v1/tasks/${task.id}/reach`)).items).toMatchObject([
    { task_id: task.id, holds: { total: 1, items: [{ entitlement: READ, state: 'revoking' }] }, could: [] },
  ]);
  await operatorsOf(house).post('/v1/targets/ledger-db/resume');
  await expect.poll(async () => (await reach(`/v1/tasks/${task.id}/reach`)).items, { timeout: 20_000 }).toEqual([]);
});

test('what is not there, and what is nobody’s to ask, is refused', async () => {
  const operators = operatorsOf(house);
  for (const path of [
    '/v1/tasks/task_0198c0de-7a11-7000-8000-0123456789ab/reach',
    '/v1/tasks/x/reach',
    '/v1/workloads/nobody/reach',
    `/v1/entitlements/ledger-db/UPPER/reach`,
    '/v1/entitlements/ledger-db/read-none/reach',
  ]) {
    const reply = await operators.get(path);
    expect([path, reply.status, reply.body['code']]).toEqual([path, 404, 'not_found']);
  }
  // It may be seen at any moment: that it reaches nothing is an answer.
  expect(await reach('/v1/workloads/dev%3Anobody/reach')).toMatchObject({ items: [], tasks: 0, grants: 0 });
  const refused = await owner.call('GET', WORKLOAD);
  expect([refused.status, refused.body['code']]).toEqual([403, 'operator_only']);
  expect((await operators.get(`${WORKLOAD}?limit=51`)).status).toBe(400);
});

test('operators see what is in their scope', async () => {
  const trust = (files['trust.yaml'] ?? '')
    .replace('claim: roles', 'claim: sub')
    .replace(
      /roles: \{[^}]*\}/,
      'roles: { finance: [{ roles: [viewer], scope: { owner: team-finance } }], else: [{ roles: [viewer], scope: { owner: team-else } }] }',
    );
  await house.broker.apply({ ...files, 'trust.yaml': trust });
  const asked = async (subject: string, path: string) => {
    const { token } = await house.issuer.signOperatorToken({
      subject,
      roles: ['viewer'],
      audience: house.url,
      ttl_seconds: 900,
    });
    return await ask(house.url, 'GET', path, { token });
  };
  expect((await asked('finance', WORKLOAD)).body).toMatchObject({ tasks: 3, grants: 4 });
  expect((await asked('else', WORKLOAD)).body).toMatchObject({ tasks: 0, grants: 0, items: [] });
  for (const path of [`/v1/tasks/${executing.id}/reach`, `/v1/entitlements/${READ}/reach`])
    expect([(await asked('finance', path)).status, (await asked('else', path)).status]).toEqual([200, 404]);
  await house.broker.apply(files);
});

test('in the terminal it is one line for each thing', { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-reach-'));
  const file = join(folder, 'token');
  writeFileSync(file, await operatorsOf(house).token('viewer'));
  const env = { MAYFLY_URL: house.url, MAYFLY_TOKEN_FILE: file };
  const { stdout, stderr } = await startCli(['reach', 'dev:agent-recon'], { env }).ended;
  expect(stderr).toBe('');
  expect(stdout).toContain('workload dev:agent-recon: 4 grants not yet contained, 3 tasks');
  expect(stdout).toMatch(new RegExp(`could +${READ} +permitted +600 s \\(read-invoices\\)`));
  expect(stdout).toMatch(new RegExp(`holds +${PAY} +grt_`));
  expect((await startCli(['reach', PAY], { env }).ended).stdout).toContain(`entitlement ${PAY}: 1 grant not yet`);
  expect((await startCli(['reach', 'x'], { env }).ended).code).not.toBe(0);
  rmSync(folder, { recursive: true });
});

test('kills, pauses, limits and suspended tasks stand in the way as they do for an ask', async () => {
  const operators = operatorsOf(house);
  const answers = async () =>
    (await reach(`/v1/tasks/${planning.id}/reach`)).items[0]?.could.map(({ because }) => because);
  const kill = await operators.post('/v1/kill', { scope: 'entitlement', id: READ, reason: 'test' });
  expect(await answers()).toEqual(['killed', 'denied_by_policy']);
  const token = await operators.token('operator');
  await ask(house.url, 'DELETE', `/v1/kill/${String(kill.body['id'])}`, { token });
  await operators.post('/v1/targets/ledger-db/pause', { reason: 'test' });
  expect(await answers()).toEqual(['target_paused', 'target_paused']);
  await operators.post('/v1/targets/ledger-db/resume');
  await house.broker.apply({
    ...files,
    'limits.yaml':
      'toxic: [{ name: apart, one: { entitlements: [ledger-db/read-invoices] }, other: { entitlements: [ledger-db/read-payments] }, reason: Not both. }]',
  });
  const held = await reach(`/v1/tasks/${executing.id}/reach`);
  expect(held.items[0]?.could[0]).toMatchObject({ because: 'limit_reached', reasons: ['Not both.'] });
  await house.broker.apply(files);
  await house.onStore(`UPDATE mayfly.tasks SET state = 'suspended' WHERE id = $1`, [planning.id.slice(5)]);
  expect(await answers()).toEqual(['task_suspended', 'task_suspended']);
  await house.onStore(`UPDATE mayfly.tasks SET state = 'active' WHERE id = $1`, [planning.id.slice(5)]);
});
