import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { claimClock, claimDue } from '../../src/store/claims.ts';
import { Database, type Queryable, type Statement } from '../../src/store/database.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';
import { bear } from '../support/sweep-plans.ts';

let server: PostgresServer;
let owner: pg.Client;
let db: Database;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  const store = await createStore(server);
  owner = new pg.Client({ connectionString: store.ownerUrl.reveal() });
  await owner.connect();
  db = new Database({ url: store.runtimeUrl, connections: 2, onError: () => {} });
});
afterAll(async () => {
  await db?.close();
  await owner?.end();
  await server?.stop();
});

test('no more are claimed than were asked for: what is to be fenced first, and what is to be cleaned in the places left', async () => {
  await bear(owner, 5);
  const step = (set: string, where: string) => owner.query(`UPDATE mayfly.revocations SET ${set} WHERE ${where}`);
  const past = `clock_timestamp() - interval '1 minute'`;
  await step(`target = 'one', state = 'due', due_at = ${past}, try_at = ${past}`, 'true');
  // Those to be cleaned have waited longer.
  const cleaned = 'id IN (SELECT id FROM mayfly.revocations ORDER BY id LIMIT 3)';
  await step(
    `state = 'running', claim_number = 0, claimed_until = ${past}, try_at = try_at - interval '1 hour'`,
    cleaned,
  );
  await step(`state = 'contained', contained_at = ${past}`, `state = 'running'`);
  await owner.query(`UPDATE mayfly.grants SET state = 'revoking', ended_at = clock_timestamp(), ended_by = 'expired'`);

  const contained: boolean[][] = [];
  for (const limit of [1, 2, 10]) {
    const claim = await claimDue(db, 'one', 'worker', 60, limit);
    contained.push(claim?.items.map((item) => item.contained).sort() ?? []);
  }
  expect(contained).toEqual([[false], [false, true], [true, true]]);
  expect(await claimDue(db, 'one', 'worker', 60, 10)).toBeUndefined();
});

test('what was there before the store failed over is told so, noted or not, and what came later is not', async () => {
  const timeline = (set: string) => owner.query(`UPDATE mayfly.timeline SET ${set}`);
  const claim = async () => {
    await owner.query(
      `UPDATE mayfly.revocations SET try_at = clock_timestamp() - interval '1 second' WHERE state = 'contained'`,
    );
    return (await claimDue(db, 'one', 'worker', 60, 1))?.items.map(({ setBackAt }) => setBackAt);
  };
  const noted = new Date('2020-01-01T00:00:00Z');
  expect(await claim()).toEqual([undefined]);
  await timeline('timeline = 99');
  expect(await claim()).toEqual([expect.any(Date)]);
  await timeline(`timeline = mayfly.current_timeline(), changed_at = clock_timestamp()`);
  expect(await claim()).toEqual([expect.any(Date)]);
  await timeline(`changed_at = '${noted.toISOString()}'`);
  expect(await claim()).toEqual([undefined]);
  await timeline('changed_at = NULL');
});

test('the clock of a claim is never ahead of the store, however long the way there and back', async () => {
  await owner.query(`UPDATE mayfly.revocations SET try_at = clock_timestamp() WHERE state = 'contained'`);
  const slow: Queryable = {
    query: async <R extends Record<string, unknown>>(statement: Statement) => {
      await sleep(200);
      const rows = await db.query<R>(statement);
      await sleep(200);
      return rows;
    },
  };
  const claim = await claimDue(slow, 'one', 'worker', 60, 1);
  if (claim === undefined) throw new Error('nothing is due');
  const there = claimClock(claim);
  const { rows } = await owner.query<{ now: Date }>('SELECT clock_timestamp() AS now');
  const behind = (rows[0]?.now.getTime() ?? 0) - there.getTime();
  expect(behind).toBeGreaterThanOrEqual(0);
  expect(behind).toBeLessThan(30_000);
});
