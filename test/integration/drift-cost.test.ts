import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Transaction } from '../../src/store/database.ts';
import { claimUndecided, findTasksOfOthers, readDrift } from '../../src/store/drift.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';
import { bear, explain, PLANNED, rowsIn, scansIn } from '../support/sweep-plans.ts';

const LIVING = 20_000;
const SLICE = 100;

let server: PostgresServer;
let client: pg.Client;
beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: PLANNED });
  const store = await createStore(server);
  client = new pg.Client({ connectionString: server.superuserUrl(store.database) });
  await client.connect();
  await client.query('SET session_replication_role = replica');
  await bear(client, LIVING);
  await client.query(`INSERT INTO mayfly.catalog_revisions (digest, files, applied_by) VALUES ('d', '{}', 't');
    INSERT INTO mayfly.catalog_active SELECT true, number FROM mayfly.catalog_revisions`);
  await client.query('RESET session_replication_role');
  for (const table of ['tasks', 'grants']) await client.query(`ANALYZE mayfly.${table}`);
});
afterAll(async () => {
  await client?.end();
  await server?.stop();
});
beforeEach(async () => {
  await client.query('BEGIN');
});
afterEach(async () => {
  await client.query('ROLLBACK; DEALLOCATE ALL');
});

/** How many rows a statement looks at, and whether it reads the whole table. */
async function cost(ask: (tx: Transaction) => Promise<unknown>, table: string) {
  const [plan] = await explain(client, ask);
  return { rows: rowsIn(plan, table), whole: scansIn(plan, table).some(({ kind }) => kind === 'Seq Scan') };
}

test.each([
  ['claimUndecided', (tx: Transaction) => claimUndecided(tx, 1, SLICE, [])],
  ['readDrift', (tx: Transaction) => readDrift(tx)],
])('%s looks at no grant while all are decided', async (_, ask) => {
  expect(await cost(ask, 'grants')).toEqual({ rows: 0, whole: false });
});

test('after an apply, of all that lives it looks at a slice, and at what moved first', async () => {
  const behind = await cost((tx) => claimUndecided(tx, 2, SLICE, []), 'grants');
  expect(behind.whole).toBe(false);
  expect(behind.rows).toBeLessThanOrEqual(2 * SLICE);
  await client.query(
    `UPDATE mayfly.grants SET retained_revision = 0 WHERE id IN (SELECT id FROM mayfly.grants ORDER BY deadline LIMIT 3)`,
  );
  const { rows } = await client.query<{ moved: boolean }>(
    `SELECT retained_revision IS NOT NULL AS moved FROM mayfly.grants g WHERE state IN ('minting', 'active')
     AND coalesce(g.retained_revision, g.decided_revision) < 2 ORDER BY coalesce(g.retained_revision, g.decided_revision), g.deadline DESC LIMIT 4`,
  );
  expect(rows.map(({ moved }) => moved)).toEqual([true, true, true, false]);
});

test('without its index it would read them all, and this test would see it', async () => {
  await client.query('DROP INDEX mayfly.grants_to_decide');
  const { rows, whole } = await cost((tx) => claimUndecided(tx, 1, SLICE, []), 'grants');
  expect(whole || rows > SLICE).toBe(true);
});

test('whether all living tasks are of trusted issuers is told by a few of them', async () => {
  const { rows } = await cost((tx) => findTasksOfOthers(tx, ['i'], SLICE), 'tasks');
  expect(rows).toBeGreaterThan(0);
  expect(rows).toBeLessThan(SLICE);
});
