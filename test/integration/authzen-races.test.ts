import pg from 'pg';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { birthLockKeys } from '../../src/store/locks.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import { ask } from '../support/ask.ts';
import { aboutTask, ENTITIES, permitting, said, SCHEMA, TYPES } from '../support/authzen.ts';
import { type House, startHouse } from '../support/house.ts';

const ASKERS = 8;

let house: House;
let replica: { url: string };
beforeAll(async () => {
  house = await startHouse({
    files: {
      [SCHEMA]: TYPES,
      'entities.yaml': ENTITIES,
      'policies/evaluating.cedar': permitting('all', 'true'),
    },
  });
  replica = await house.startReplica();
});
afterAll(() => house?.stop());

test('on two replicas nothing is permitted to a task after the answer to its end', async () => {
  const token = await house.token();
  for (let round = 0; round < 5; round++) {
    const { task } = await house.client().openTask(await house.sign());
    const body = aboutTask(task.id);
    let ended = false;
    let permitted = 0;
    const late: unknown[] = [];
    const askers = Array.from({ length: ASKERS }, async (_, n) => {
      for (let deniedInRow = 0; deniedInRow < 3; ) {
        const afterEnd = ended;
        const url = n % 2 === 0 ? house.url : replica.url;
        const reply = await ask(url, 'POST', '/access/v1/evaluation', { token, body });
        const allowed = reply.body['decision'] === true;
        if (allowed) permitted += 1;
        if (allowed && afterEnd) late.push(reply.body);
        deniedInRow = allowed ? 0 : deniedInRow + 1;
      }
    });
    await vi.waitFor(() => expect(permitted).toBeGreaterThan(ASKERS), { timeout: 60_000, interval: 5 });
    await house.client().cancel(task.id);
    ended = true;
    await Promise.all(askers);
    expect(late).toEqual([]);
  }
});

test('what is asked while an end is being committed waits for it, and hears of it', async () => {
  const { task } = await house.client().openTask(await house.sign());
  const id = task.id.slice(5);
  const [, , root, key] = birthLockKeys(id as TaskId);
  const ending = new pg.Client({ connectionString: house.store.ownerUrl.reveal() });
  await ending.connect();
  try {
    await ending.query('BEGIN');
    await ending.query('SELECT pg_advisory_xact_lock($1, $2)', [root, key]);
    await ending.query(
      `UPDATE mayfly.tasks SET state = 'cancelled', ended_at = clock_timestamp(), ended_by = 'cancelled' WHERE id = $1`,
      [id],
    );
    const reply = ask(house.url, 'POST', '/access/v1/evaluation', {
      ...{ token: await house.token(), body: aboutTask(task.id) },
    });
    await vi.waitFor(
      async () =>
        expect(
          await house.onStore(
            `SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = $1 AND NOT granted`,
            [root],
          ),
        ).toHaveLength(1),
      { timeout: 60_000, interval: 20 },
    );
    await ending.query('COMMIT');
    expect(said(await reply)).toEqual([200, false, 'task_ended']);
  } finally {
    await ending.end();
  }
});
