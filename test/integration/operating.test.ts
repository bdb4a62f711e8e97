import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { ask } from '../support/ask.ts';
import { type House, startHouse } from '../support/house.ts';
import { grantsIn, type Operators, operatorsOf } from '../support/operators.ts';

const PAUSE = '/v1/targets/ledger-db/pause';
const RESUME = '/v1/targets/ledger-db/resume';
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
afterEach(async () => {
  await operators.post(RESUME);
});

/** Grants that ended early on the paused target: their revocations are due, and nobody touches them. */
async function heldBack(count: number): Promise<string[]> {
  const { task, grants } = await grantsIn(house, count);
  expect((await operators.post(PAUSE, REASON)).status).toBe(200);
  await house.client().cancel(task.id);
  return grants.map(({ revocation }) => revocation.id);
}

async function events(type: string, revocation: string) {
  return await house.onStore<{ payload: Record<string, unknown> }>(
    `SELECT payload FROM mayfly.audit_events WHERE type = $1 AND payload->>'revocation_id' = $2`,
    [type, revocation],
  );
}

describe('a paused target', () => {
  /** Another whole sweep has ended. */
  async function aSweep(): Promise<void> {
    let last = 0;
    await vi.waitFor(
      async () => {
        const { text } = await ask(house.url, 'GET', '/metrics');
        const before = last;
        last = Number(/^mayfly_sweep_age_seconds (\S+)$/m.exec(text)?.[1]);
        expect(last).toBeLessThan(before);
      },
      { timeout: 60_000, interval: 50 },
    );
  }

  test('issues and renews nothing, holds early ends back, and goes on when it is resumed', async () => {
    const { grants, task } = await grantsIn(house, 2);
    const [grant] = grants;
    const paused = await operators.post(PAUSE, REASON);
    expect(paused.body).toMatchObject({
      target: 'ledger-db',
      pause: { by: 'dev-operators:olga', deadlines: 'run', ...REASON },
    });
    const token = await house.token();
    const wanted = { entitlement: 'ledger-db/read-invoices' };
    const issue = await ask(house.url, 'POST', `/v1/tasks/${task.id}/grants`, { token, body: wanted });
    expect([issue.status, issue.body['code'], issue.headers['retry-after']]).toEqual([503, 'target_paused', '30']);
    const renewal = { token, body: { ttl_seconds: 300 } };
    const renew = await ask(house.url, 'POST', `/v1/grants/${grant?.id}/renew`, renewal);
    expect([renew.status, renew.body['code']]).toEqual([503, 'target_paused']);
    expect(await house.onStore('SELECT FROM mayfly.grants WHERE task_id = $1', [task.id.slice(5)])).toHaveLength(2);

    await house.client().cancel(task.id);
    const id = grant?.revocation.id ?? '';
    await aSweep();
    await aSweep();
    expect(await operators.story(id)).toMatchObject({
      revocation: { state: 'due', attempts: 0, grant_state: 'revoking', ended_by: 'cancelled' },
      pause: REASON,
    });
    expect((await operators.queue()).counts).toEqual([
      expect.objectContaining({ target: 'ledger-db', due: 2, running: 0, pause: expect.objectContaining(REASON) }),
    ]);
    await operators.post(RESUME);
    expect((await operators.until(id, 'clean')).pause).toBeUndefined();
  });

  test('ends what reaches its deadline all the same, also what had ended early', async () => {
    const short = await grantsIn(house, 2, 4);
    await operators.post(PAUSE, REASON);
    const [early, late] = short.grants;
    await ask(house.url, 'DELETE', `/v1/grants/${early?.id}`, { token: await house.token() });
    const stories = await Promise.all(
      [early, late].map((grant) => operators.until(grant?.revocation.id ?? '', 'clean')),
    );
    for (const { revocation } of stories)
      expect(Date.parse(revocation.contained_at ?? '')).toBeGreaterThanOrEqual(Date.parse(revocation.deadline));
    expect(stories.map(({ revocation }) => revocation.ended_by)).toEqual(['released', 'expired']);
  });

  test('holds deadlines too when that is said, and says so loudly', async () => {
    const { grants } = await grantsIn(house, 1, 1);
    const paused = await operators.post(PAUSE, { ...REASON, deadlines: 'also' });
    expect(paused.body).toMatchObject({
      pause: { deadlines: 'held' },
      says: expect.stringContaining('NOTHING is taken back'),
    });
    const id = grants[0]?.revocation.id ?? '';
    await operators.until(id, 'due');
    await aSweep();
    await aSweep();
    expect((await operators.story(id)).revocation).toMatchObject({ state: 'due', attempts: 0 });
    const { text } = await ask(house.url, 'GET', '/metrics');
    expect(text).toContain('mayfly_target_paused{target="ledger-db",deadlines="held"} 1');
    await operators.post(RESUME);
    await operators.until(id, 'clean');
  });

  test('is paused once by two operators at once, and again only when the second says another thing', async () => {
    const before = await house.onStore(`SELECT FROM mayfly.audit_events WHERE type = 'target.paused'`);
    const both = await Promise.all(
      ['olga', 'omar'].map((who) => operators.post(PAUSE, { reason: `${who} says so` }, 'operator', who)),
    );
    expect(both.map(({ status }) => status)).toEqual([200, 200]);
    expect(both[0]?.body).toEqual(both[1]?.body);
    await operators.post(PAUSE, { reason: 'worse than thought', deadlines: 'also' });
    const after = await house.onStore<{ payload: object }>(
      `SELECT payload FROM mayfly.audit_events WHERE type = 'target.paused' ORDER BY ts, id`,
    );
    expect(after.slice(before.length).map(({ payload }) => payload)).toEqual([
      expect.objectContaining({ deadlines: 'run' }),
      expect.objectContaining({ deadlines: 'held', reason: 'worse than thought' }),
    ]);
  });
});

describe('a retry', () => {
  test('makes due now what waits, counts no attempt away, and is evidence', async () => {
    const [id = ''] = await heldBack(1);
    await house.onStore(
      `UPDATE mayfly.revocations SET attempts = 7, last_error = 'denied', try_at = clock_timestamp() + interval '1 hour' WHERE id = $1`,
      [id.slice(4)],
    );
    expect((await operators.queue('?state=waiting')).items.map((item) => item.id)).toEqual([id]);
    const reply = await operators.post(`/v1/revocations/${id}/retry`);
    expect(reply.status).toBe(202);
    const { revocation } = await operators.story(id);
    expect(revocation).toMatchObject({ state: 'due', attempts: 7, last_error: 'denied' });
    expect((await operators.queue('?state=due')).items.map((item) => item.id)).toContain(id);
    expect(await events('revocation.retried', id)).toEqual([
      { payload: expect.objectContaining({ by: 'dev-operators:olga', attempts: 7 }) },
    ]);
    await operators.post(RESUME);
    expect((await operators.until(id, 'clean')).revocation.attempts).toBe(8);
  });

  test('of what is clean, written off or alive is refused', async () => {
    const { grants, task } = await grantsIn(house, 1);
    const id = grants[0]?.revocation.id ?? '';
    const alive = await operators.post(`/v1/revocations/${id}/retry`);
    expect([alive.status, alive.body['code']]).toEqual([409, 'revocation_not_due']);
    await house.client().cancel(task.id);
    await operators.until(id, 'clean');
    const clean = await operators.post(`/v1/revocations/${id}/retry`);
    expect([clean.status, clean.body['code'], clean.body['state']]).toEqual([409, 'revocation_over', 'clean']);
    const [lost = ''] = await heldBack(1);
    await operators.post(`/v1/revocations/${lost}/write-off`, REASON);
    expect((await operators.post(`/v1/revocations/${lost}/retry`)).status).toBe(409);
    expect(await events('revocation.retried', id)).toEqual([]);
  });
});

describe('a write-off', () => {
  test('ends the trying with its reason, calls nothing contained, and leaves the grant revoking', async () => {
    const [id = ''] = await heldBack(1);
    const reason = 'Сервер списан — 磁盘已销毁 ✅ (CHG-4711)';
    const reply = await operators.post(`/v1/revocations/${id}/write-off`, { reason });
    expect(reply.status).toBe(200);
    const { revocation, events: told } = await operators.story(id);
    expect(revocation).toMatchObject({
      state: 'written_off',
      grant_state: 'revoking',
      written_off: { by: 'dev-operators:olga', reason },
    });
    expect(revocation.contained_at).toBeUndefined();
    expect(told.map(({ type }) => type)).toEqual(['grant.ended', 'revocation.written_off']);
    expect(told.at(-1)?.payload).toMatchObject({ reason, by: 'dev-operators:olga' });
    // Its words are for operators: the agent is told that it was written off, and no more.
    const mine = await house.client().timeline(revocation.task_id);
    expect(mine.find(({ type }) => type === 'revocation.written_off')?.payload).toMatchObject({ attempts: 0 });
    expect(JSON.stringify(mine)).not.toContain('CHG-4711');
    const audited = await operators.get(`/v1/tasks/${revocation.task_id}/timeline`, 'auditor');
    expect([audited.status, audited.text.includes('CHG-4711')]).toEqual([200, true]);
    await operators.post(RESUME);
    const { counts, items } = await operators.queue('?state=written_off');
    expect(items.map((item) => item.id)).toContain(id);
    expect(counts.find(({ target }) => target === 'ledger-db')?.written_off).toBeGreaterThan(0);
    const handle = `mfy_${revocation.grant_id.slice(4).replaceAll('-', '')}`;
    expect(await house.onTarget('SELECT FROM pg_roles WHERE rolname = $1', [handle])).toHaveLength(1);
  });

  test('by two operators at once is one of them’s', async () => {
    const [id = ''] = await heldBack(1);
    const holder = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
    await holder.connect();
    await holder.query('BEGIN');
    await holder.query('SELECT FROM mayfly.revocations WHERE id = $1 FOR UPDATE', [id.slice(4)]);
    const asked = ['olga', 'omar'].map((who) =>
      operators.post(`/v1/revocations/${id}/write-off`, { reason: `${who} says so` }, 'operator', who),
    );
    await vi.waitFor(
      async () => expect(await house.onStore('SELECT FROM pg_locks WHERE NOT granted')).toHaveLength(2),
      {
        timeout: 60_000,
        interval: 20,
      },
    );
    await holder.end();
    const both = await Promise.all(asked);
    expect(both.map(({ status }) => status).sort((a, b) => a - b)).toEqual([200, 409]);
    expect(both.find(({ status }) => status === 409)?.body).toMatchObject({
      code: 'revocation_over',
      state: 'written_off',
    });
    expect(await events('revocation.written_off', id)).toHaveLength(1);
  });

  test('of what is alive, in hand, contained or clean is refused', async () => {
    const { grants, task } = await grantsIn(house, 1);
    const id = grants[0]?.revocation.id ?? '';
    const path = `/v1/revocations/${id}/write-off`;
    expect((await operators.post(path, REASON)).body['code']).toBe('revocation_not_due');
    await operators.post(PAUSE, REASON);
    await house.client().cancel(task.id);
    const until = `clock_timestamp() + interval '1 hour'`;
    const grant = id.slice(4);
    await house.onStore(
      `UPDATE mayfly.revocations SET state = 'running', claim_number = 0, claimed_by = 'w', claimed_until = ${until} WHERE id = $1`,
      [grant],
    );
    expect((await operators.post(path, REASON)).body['code']).toBe('revocation_running');
    expect((await operators.post(path.replace('write-off', 'retry'))).status).toBe(202);
    await house.onStore(
      `UPDATE mayfly.revocations SET state = 'due', claimed_by = NULL, claimed_until = NULL WHERE id = $1`,
      [grant],
    );
    await operators.post(RESUME);
    await operators.until(id, 'clean');
    expect((await operators.post(path, REASON)).body).toMatchObject({ code: 'revocation_over', state: 'clean' });
    expect(await events('revocation.written_off', id)).toEqual([]);
  });
});

describe('the queue', () => {
  test('is read in pages that lose nothing and show nothing twice while it changes', async () => {
    const ids = (await heldBack(7)).sort();
    const task = (await operators.story(ids[0] ?? '')).revocation.task_id;
    const query = `?limit=2&task=${task}`;
    const first = await operators.queue(query);
    expect(first.items.map(({ id }) => id)).toEqual(ids.slice(0, 2));
    // Of those shown one changes, of those to come one is due earlier now, and one is no longer in the queue.
    await operators.post(`/v1/revocations/${ids[0]}/write-off`, REASON);
    await house.onStore(`UPDATE mayfly.revocations SET due_at = due_at - interval '1 hour' WHERE id = $1`, [
      ids[5]?.slice(4),
    ]);
    await house.onStore(
      `WITH r AS (UPDATE mayfly.revocations SET state = 'running', claim_number = 0, claimed_until = clock_timestamp() WHERE id = $1 RETURNING id) SELECT FROM r`,
      [ids[3]?.slice(4)],
    );
    const seen = first.items.map(({ id }) => id);
    for (let cursor = first.next_cursor; cursor !== null; ) {
      const page = await operators.queue(`${query}&cursor=${cursor}`);
      seen.push(...page.items.map(({ id }) => id));
      cursor = page.next_cursor;
    }
    expect(seen).toEqual(ids);
  });

  test('is filtered by what it is about', async () => {
    const [id = ''] = await heldBack(1);
    const { revocation } = await operators.story(id);
    const found = async (query: string) => (await operators.queue(query)).items.map((item) => item.id);
    for (const query of [
      `?grant=${revocation.grant_id}`,
      `?task=${revocation.task_id}`,
      `?task=${revocation.task_id}&ended_by=cancelled&target=ledger-db&overdue=false`,
      `?task=${revocation.task_id}&since=${encodeURIComponent(revocation.due_at)}`,
    ])
      expect([query, await found(query)]).toEqual([query, [id]]);
    for (const query of [
      `?task=${revocation.task_id}&ended_by=expired`,
      `?task=${revocation.task_id}&target=crm-db`,
      `?task=${revocation.task_id}&overdue=true`,
      `?task=${revocation.task_id}&state=running`,
      `?task=${revocation.task_id}&since=${encodeURIComponent('2100-01-01T00:00:00+01:00')}`,
    ])
      expect([query, await found(query)]).toEqual([query, []]);
  });
});
