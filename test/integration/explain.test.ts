import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TaskBody } from '../../src/client/index.ts';
import { decisionsPageBody, explainedBody } from '../../src/http/decision-bodies.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from '../../src/policy/engine.ts';
import { ask } from '../support/ask.ts';
import { startCli } from '../support/cli.ts';
import { type House, startHouse } from '../support/house.ts';
import { operatorsOf } from '../support/operators.ts';

const INVOICES = 'ledger-db/read-invoices';
const PAYMENTS = 'ledger-db/read-payments';

let house: House;
beforeAll(async () => {
  house = await startHouse();
});
afterAll(() => house?.stop());

const open = async (phase = 'plan'): Promise<TaskBody> =>
  (await house.client().openTask(await house.sign({ phase, entitlements: [INVOICES, PAYMENTS] }))).task;
const get = async (path: string) => (await operatorsOf(house).get(path, 'viewer')).body;
const explained = async (id: string) => explainedBody.parse(await get(`/v1/decisions/${id}`));
const decisionsOf = async (task: TaskBody) => decisionsPageBody.parse(await get(`/v1/decisions?task=${task.id}`)).items;

describe('a decision is explained', () => {
  test('with its policies as they stood, its revision and its inputs, and is made again the same', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: INVOICES });
    await house.broker.apply({ ...house.files, 'policies/test.cedar': '// Nothing is permitted any more.\n' });
    const told = await explained(grant.decision_id);
    expect(told).toMatchObject({
      ...{ grant_id: grant.id, task_id: task.id, action: 'issue', resource: INVOICES, decision: 'permit' },
      ...{ policies: ['read-invoices'], errors: [], max_ttl_seconds: 300, replay: 'identical' },
      catalog: { applied_by: 'test' },
      determined_by: [{ id: 'read-invoices', file: 'policies/test.cedar', line: 2 }],
    });
    expect(told.determined_by[0]?.text).toContain('@max_ttl("5m")');
    expect(JSON.stringify(told.inputs)).toContain('reconcile.invoices');
    await house.broker.apply(house.files);
  });

  test('also where it was a denial, and where a limit kept it from coming to anything', async () => {
    await house.broker.apply({ ...house.files, 'limits.yaml': 'at_most: [{ name: one, grants: 1, per: tree }]' });
    const task = await open();
    const asks = [PAYMENTS, INVOICES, INVOICES];
    for (const entitlement of asks) {
      const token = await house.token();
      await ask(house.url, 'POST', `/v1/tasks/${task.id}/grants`, { token, body: { entitlement } });
    }
    const [limited, permitted, denied] = await decisionsOf(task);
    expect(denied).toMatchObject({ decision: 'deny', policies: [], refusal: 'denied_by_policy', replay: 'identical' });
    expect(permitted).toMatchObject({ decision: 'permit', replay: 'identical' });
    expect(permitted).not.toHaveProperty('refusal');
    expect(limited).toMatchObject({ decision: 'permit', refusal: 'limit_reached', limit: 'one', replay: 'identical' });
    expect(await explained(denied?.id ?? '')).toMatchObject({ determined_by: [] });
    await house.broker.apply(house.files);
  });

  test('page by page, and by what it was', async () => {
    const task = await open();
    for (let n = 0; n < 5; n++) await house.client().issue(task.id, { entitlement: INVOICES });
    const first = decisionsPageBody.parse(await get(`/v1/decisions?task=${task.id}&limit=3`));
    const second = decisionsPageBody.parse(
      await get(`/v1/decisions?task=${task.id}&limit=3&cursor=${first.next_cursor}`),
    );
    expect([first.items.length, second.items.length, second.next_cursor]).toEqual([3, 2, null]);
    const ids = [...first.items, ...second.items].map(({ id }) => id);
    expect(ids).toEqual([...new Set(ids)].sort().reverse());
    const denials = decisionsPageBody.parse(await get(`/v1/decisions?task=${task.id}&decision=deny`));
    expect(denials.items).toEqual([]);
  });
});

describe('a page of decisions', () => {
  test('may span more revisions than Cedar keeps ready at once', async () => {
    const task = await open();
    for (let n = 0; n < 9; n++) {
      // Two sets of policies each.
      const tried = `@id("tried-${n}") @enforce("report") forbid (principal, action, resource) when { context.ttl < duration("1s") };`;
      await house.broker.apply({ ...house.files, 'policies/tried.cedar': `${tried}\n` });
      await house.client().issue(task.id, { entitlement: INVOICES });
    }
    const items = await decisionsOf(task);
    expect(new Set(items.map(({ revision }) => revision)).size).toBeGreaterThanOrEqual(9);
    expect(new Set(items.map(({ replay }) => replay))).toEqual(new Set(['identical']));
    await house.broker.apply(house.files);
  });

  test('many at once say nothing false: each is made again, or is to be asked for again', async () => {
    const task = await open();
    for (let n = 0; n < 4; n++) {
      const tried = `@id("more-${n}") @enforce("report") forbid (principal, action, resource) when { context.ttl < duration("1s") };`;
      await house.broker.apply({ ...house.files, 'policies/tried.cedar': `${tried}\n` });
      await house.client().issue(task.id, { entitlement: INVOICES });
    }
    const asks = Array.from({ length: 6 }, () => operatorsOf(house).get(`/v1/decisions?task=${task.id}`));
    const answers = (await Promise.all(asks)).map(({ status, body, headers }) =>
      status === 503
        ? `${String(body['code'])} ${String(headers['retry-after'])}`
        : decisionsPageBody
            .parse(body)
            .items.map(({ replay }) => replay)
            .join(' '),
    );
    for (const answer of answers)
      expect(['identical identical identical identical', 'policies_busy 5']).toContain(answer);
    // Where none can be had at all.
    const held: OwnedPolicyEngine[] = [];
    const hold = () => {
      for (;;) held.push(createPolicyEngine({ schema: '', policies: [], entities: [] }, 'none'));
    };
    try {
      expect(hold).toThrow('at once');
      const { status, body, headers } = await operatorsOf(house).get(`/v1/decisions?task=${task.id}`);
      expect([status, body['code'], headers['retry-after']]).toEqual([503, 'policies_busy', '2']);
    } finally {
      for (const engine of held) engine.close();
    }
    expect((await decisionsOf(task)).map(({ replay }) => replay)).toEqual(Array(4).fill('identical'));
    await house.broker.apply(house.files);
  });
});

describe('the terminal', () => {
  const run = (...args: string[]) => startCli(args, { env: { MAYFLY_DIR: house.devDir } }).ended;

  test('explains a grant', async () => {
    const task = await open();
    const { grant } = await house.client().issue(task.id, { entitlement: INVOICES });
    const { code, stdout } = await run('explain', grant.id);
    expect(code).toBe(0);
    expect(stdout).toContain(`PERMIT issue ${INVOICES}, for ${task.id}`);
    expect(stdout).toContain('policies/test.cedar:2');
    expect(stdout).toContain('Decided again from the same inputs: identical');
    expect((await run('explain', 'grt_00000000-0000-7000-8000-000000000000')).code).toBe(1);
  });

  test('replays all decisions, and fails where one is not what is recorded', async () => {
    const whole = await run('replay');
    expect([whole.code, whole.stdout]).toEqual([0, expect.stringMatching(/^[1-9]\d* identical, 0 different, 0 not/)]);
    const task = await open();
    await house.client().issue(task.id, { entitlement: INVOICES });
    const [made] = await decisionsOf(task);
    await house.onStore('UPDATE mayfly.decisions SET permitted = false WHERE task_id = $1', [task.id.slice(5)]);
    const { code, stdout } = await run('replay', '--task', task.id);
    expect([code, stdout]).toEqual([1, expect.stringContaining(made?.id ?? 'none')]);
    expect((await run('replay', '--since', new Date(Date.now() + 60_000).toISOString())).stdout).toMatch(
      /^0 identical/,
    );
  });
});
