import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { askedRunBody, checkedBody, targetsPageBody } from '../../src/http/target-bodies.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';
import { mintUnknown } from '../support/reconcile.ts';

const RECONCILE = '/v1/targets/ledger-db/reconcile';
const CHECK = '/v1/targets/ledger-db/check';

let house: House;
let operators: Operators;

beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});

async function reconcile(query = '') {
  const { status, body } = await operators.post(`${RECONCILE}${query}`);
  return { status, body: askedRunBody.parse(body) };
}

async function ledger() {
  const { items } = targetsPageBody.parse((await operators.get('/v1/targets')).body);
  const found = items.find(({ name }) => name === 'ledger-db');
  if (found === undefined) throw new Error('the target is not listed');
  return found;
}

async function told(type: string) {
  return await house.onStore<{ payload: Record<string, unknown>; action: string }>(
    'SELECT payload, action FROM mayfly.audit_events WHERE type = $1 ORDER BY ts, id',
    [type],
  );
}

describe('a comparison that an operator asks for', () => {
  test('is waited for, and answered with what it found', async () => {
    await mintUnknown(house);
    const { status, body } = await reconcile('?wait=30');
    expect([status, body.state]).toEqual([200, 'over']);
    expect(body.reconciliation.result).toMatchObject({ outcome: 'done', listed: 1, waiting: 1, orphans: 0 });
    expect(Date.parse(body.reconciliation.started_at ?? '')).toBeGreaterThanOrEqual(Date.parse(body.asked_at));
    expect(await told('target.reconcile_asked')).toEqual([
      { action: 'reconcile_asked', payload: { target: 'ledger-db', by: 'dev-operators:olga' } },
    ]);
  });

  test('is answered at once where nobody waits, and the list of targets shows what it found', async () => {
    const { status, body } = await reconcile();
    expect([status, body.state === 'over']).toEqual([202, false]);
    expect(body.says).toContain('GET /v1/targets');
    await vi.waitFor(
      async () => {
        const { reconciliation } = await ledger();
        expect(Date.parse(reconciliation?.started_at ?? '')).toBeGreaterThanOrEqual(Date.parse(body.asked_at));
        expect(reconciliation?.result?.outcome).toBe('done');
        expect(reconciliation?.worker).toBeUndefined();
      },
      { timeout: 60_000, interval: 50 },
    );
  });

  test('begins no second run beside one under way, says so, and follows it', async () => {
    await reconcile('?wait=30');
    const [held] = await house.onStore<{ n: string }>(
      `UPDATE mayfly.reconciliations SET claimed_by = 'another', claim_number = nextval('mayfly.claim_numbers'), started_at = clock_timestamp(),
         claimed_until = clock_timestamp() + interval '1 hour' RETURNING claim_number AS n`,
    );
    // Longer than a broker takes to claim what is free.
    const { status, body } = await reconcile('?wait=3');
    expect([status, body.state, body.reconciliation.worker]).toEqual([202, 'asked', 'another']);
    expect(body.says).toContain('follows it');
    expect(await house.onStore('SELECT claim_number AS n FROM mayfly.reconciliations')).toEqual([held]);
    // Asked for twice, it is done once.
    expect((await reconcile()).body.state).toBe('asked');
    await house.onStore('UPDATE mayfly.reconciliations SET claimed_until = clock_timestamp()');
    await vi.waitFor(
      async () => {
        const {
          started_at: started = '',
          finished_at: finished = '',
          next_at: next = '',
        } = (await ledger()).reconciliation ?? {};
        expect(Date.parse(started)).toBeGreaterThanOrEqual(Date.parse(body.asked_at));
        expect(Date.parse(next) - Date.parse(finished)).toBeGreaterThan(10_000);
      },
      { timeout: 60_000, interval: 50 },
    );
  });
});

describe('a check that an operator asks for', () => {
  test('plays a life of each entitlement and leaves nothing behind', async () => {
    const roles = `SELECT count(*)::int AS n FROM pg_roles WHERE rolname LIKE 'mfy_%'`;
    const before = await house.onTarget(roles);
    const { status, body } = await operators.post(CHECK);
    const checked = checkedBody.parse(body);
    expect(checked.steps.filter(({ ok }) => !ok)).toEqual([]);
    expect([status, checked.ok, checked.target]).toEqual([200, true, 'ledger-db']);
    for (const entitlement of ['ledger-db/read-invoices', 'ledger-db/read-payments'])
      expect(checked.steps.filter((one) => one.entitlement === entitlement).map(({ step }) => step)).toEqual(
        expect.arrayContaining(['connect', 'clock', 'mint', 'login', 'fence']),
      );
    expect(await house.onTarget(roles)).toEqual(before);
    expect((await told('target.checked')).map(({ payload }) => payload)).toEqual([
      { target: 'ledger-db', by: 'dev-operators:olga', ok: true, steps: checked.steps.length, failed: [] },
    ]);
  });

  test('tells which step failed', async () => {
    await house.onTarget('GRANT CREATE ON SCHEMA billing TO PUBLIC');
    try {
      const checked = checkedBody.parse((await operators.post(CHECK)).body);
      expect(checked.ok).toBe(false);
      expect(checked.steps.find(({ ok }) => !ok)).toMatchObject({ says: expect.stringContaining('billing') });
      expect((await told('target.checked')).at(-1)?.payload).toMatchObject({
        ok: false,
        failed: expect.arrayContaining([{ entitlement: 'ledger-db/read-invoices', step: 'public_create' }]),
      });
    } finally {
      await house.onTarget('REVOKE CREATE ON SCHEMA billing FROM PUBLIC');
    }
  });
});

describe('the list of targets', () => {
  test('tells who paused one, since when and why', async () => {
    expect((await ledger()).pause).toBeNull();
    await operators.post('/v1/targets/ledger-db/pause', { reason: 'it is being moved' });
    try {
      expect(await ledger()).toMatchObject({
        catalog: { provider: 'postgres', owner: 'team-finance', environment: 'demo' },
        pause: { by: 'dev-operators:olga', reason: 'it is being moved', deadlines: 'run', since: expect.any(String) },
      });
    } finally {
      await operators.post('/v1/targets/ledger-db/resume');
    }
  });

  test('comes in pages by name, also of what was dropped from the catalog and is still paused', async () => {
    await house.onStore(
      `INSERT INTO mayfly.target_controls VALUES ('a-dropped-db', true, true, 'gone', 'ops:omar', clock_timestamp())`,
    );
    const first = targetsPageBody.parse((await operators.get('/v1/targets?limit=1')).body);
    expect(first.items).toMatchObject([{ name: 'a-dropped-db', catalog: null, pause: { deadlines: 'held' } }]);
    const second = targetsPageBody.parse((await operators.get(`/v1/targets?limit=1&cursor=${first.next_cursor}`)).body);
    expect([second.items.map(({ name }) => name), second.next_cursor]).toEqual([['ledger-db'], null]);
  });
});
