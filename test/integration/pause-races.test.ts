import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import type { GrantId } from '../../src/domain/ids.ts';
import { Database } from '../../src/store/database.ts';
import { findLivingGrants, findUncontained } from '../../src/store/living-grants.ts';
import { ask, type Reply } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { type Operators, operatorsOf } from '../support/operators.ts';

const PAUSE = '/v1/targets/ledger-db/pause';
const REASON = { reason: 'the target is being moved' };
const WANTED = { entitlement: 'ledger-db/read-invoices', ttl_seconds: 300 };

let house: House;
let operators: Operators;

beforeAll(async () => {
  house = await startHouse();
  operators = operatorsOf(house);
});
afterAll(async () => {
  await house?.stop();
});
afterEach(async () => {
  await operators.post('/v1/targets/ledger-db/resume');
});

async function openTask(): Promise<string> {
  return (await house.client().openTask(await house.sign())).task.id;
}

async function issue(task: string, key?: string, body: object = WANTED): Promise<Reply> {
  const headers = key === undefined ? {} : { 'Idempotency-Key': key };
  return await ask(house.url, 'POST', `/v1/tasks/${task}/grants`, { token: await house.token(), headers, body });
}

function grantOf({ body }: Reply): string {
  const { grant } = body;
  return typeof grant === 'object' && grant !== null && 'id' in grant ? String(grant.id) : '';
}

/** Waits until as many statements wait for a lock. */
async function waiting(count: number): Promise<void> {
  await vi.waitFor(
    async () => expect(await house.onStore('SELECT FROM pg_locks WHERE NOT granted')).toHaveLength(count),
    { timeout: 60_000, interval: 20 },
  );
}

test('a birth that was decided before a pause is over before the pause is answered', async () => {
  const task = await openTask();
  const holder = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
  await holder.connect();
  try {
    // Held behind all that it looks at, before it writes.
    await holder.query('BEGIN; LOCK TABLE mayfly.decisions IN SHARE MODE');
    const birth = issue(task);
    await waiting(1);
    const pause = operators.post(PAUSE, REASON);
    await waiting(2);
    await holder.query('ROLLBACK');
    expect((await birth).status).toBe(201);
    expect((await pause).status).toBe(200);
    expect((await issue(task)).body['code']).toBe('target_paused');
  } finally {
    await holder.end();
  }
});

describe('a repeated Idempotency-Key on a paused target', () => {
  test('is told of the grant that it was answered with, which stands', async () => {
    const task = await openTask();
    const first = await issue(task, 'once');
    expect(first.status).toBe(201);
    await operators.post(PAUSE, REASON);
    const again = await issue(task, 'once');
    expect([again.status, again.body['code'], again.body['grant_id']]).toEqual([503, 'target_paused', grantOf(first)]);
    expect((await house.client().grant(grantOf(first))).state).toBe('active');
    // A first ask has nothing to be told of.
    const other = await issue(task, 'twice');
    expect([other.status, other.body['code'], other.body['grant_id']]).toEqual([503, 'target_paused', undefined]);
    expect(await house.onStore('SELECT FROM mayfly.idempotency_keys WHERE task_id = $1', [task.slice(5)])).toHaveLength(
      1,
    );
    await operators.post('/v1/targets/ledger-db/resume');
    const afresh = await issue(task, 'once');
    expect([afresh.status, afresh.headers['idempotency-replayed']]).toEqual([201, 'true']);
    expect(grantOf(afresh)).not.toBe(grantOf(first));
  });

  test('with another body is refused as anywhere else', async () => {
    const task = await openTask();
    await issue(task, 'once');
    await operators.post(PAUSE, REASON);
    const other = await issue(task, 'once', { ...WANTED, ttl_seconds: 60 });
    expect([other.status, other.body['code']]).toEqual([422, 'idempotency_key_reused']);
  });
});

test('what a pause holds is not ended without the store either', async () => {
  const id = grantOf(await issue(await openTask())).slice(4);
  const db = new Database({ url: house.store.runtimeUrl, connections: 1, onError: () => {} });
  const look = async () => {
    const { grants, held } = await findLivingGrants(db, 100);
    const rows = await house.onStore<{ id: GrantId }>('SELECT id FROM mayfly.grants WHERE id = $1', [id]);
    const open = await findUncontained(
      db,
      rows.map((row) => row.id),
    );
    return [grants.some((grant) => grant.id === id), [...held], open.size];
  };
  try {
    await operators.post(PAUSE, REASON);
    expect(await look()).toEqual([true, [], 1]);
    await operators.post(PAUSE, { ...REASON, deadlines: 'also' });
    expect(await look()).toEqual([false, ['ledger-db'], 0]);
    await operators.post('/v1/targets/ledger-db/resume');
    expect(await look()).toEqual([true, [], 1]);
  } finally {
    await db.close();
  }
});
