import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';
import { bear, explain, PLANNED, rowsIn, scansIn, sweepStatements } from '../support/sweep-plans.ts';

/** In each state: what a target leaves behind that is down, and all of it waits for a later try. */
const WAITING = 20_000;
/** In each state, what is for the sweep to see now. */
const NOW = 20;
const STATES = ['scheduled', 'due', 'running', 'contained', 'clean'] as const;
/** Far from what waits in one state. */
const FEW = 20 * NOW;

/** Which statements of the sweep cannot do without an index while that much waits. */
const needed: Readonly<Record<string, readonly string[]>> = {
  revocations_scheduled: [
    'fallDue of one target',
    'fallDue of all targets',
    'findMoments at first',
    'findMoments later',
  ],
  revocations_due: ['claimDue', 'findClaimableTargets'],
  revocations_running: ['releaseLostClaims'],
  revocations_not_overdue: ['markOverdue'],
  revocations_to_clean: ['claimDue', 'findClaimableTargets'],
};

let server: PostgresServer;
let client: pg.Client;
beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: PLANNED });
  const store = await createStore(server);
  client = new pg.Client({ connectionString: server.superuserUrl(store.database) });
  await client.connect();
  // So many rows take minutes under the guards of states and references.
  await client.query('SET session_replication_role = replica');
  await bear(client, STATES.length * (WAITING + NOW));
  await pileUp();
  await client.query('RESET session_replication_role');
  for (const table of ['tasks', 'grants', 'revocations']) await client.query(`ANALYZE mayfly.${table}`);
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

/** Brings as many to each state as to the others; in each but the last one a few are for now, and not overdue. */
async function pileUp(): Promise<void> {
  await client.query(
    `WITH place AS (SELECT id, (row_number() OVER (ORDER BY id) - 1) % 5 AS state, row_number() OVER (ORDER BY id) <= 5 * $1 AS now
        FROM mayfly.revocations),
      planned AS (
        SELECT id, ($2::text[])[state + 1] AS state, clock_timestamp() + CASE WHEN now THEN '-1 day' ELSE '1 hour' END::interval AS at,
          now FROM place WHERE state > 0 OR now)
      UPDATE mayfly.revocations r SET state = p.state, try_at = p.at, due_at = CASE WHEN now THEN p.at ELSE r.due_at END,
        overdue_at = CASE WHEN NOT now AND p.state <> 'scheduled' THEN clock_timestamp() END,
        claim_number = 1, claimed_until = CASE WHEN p.state = 'running' THEN p.at END,
        contained_at = CASE WHEN p.state IN ('contained', 'clean') THEN clock_timestamp() END,
        clean_at = CASE WHEN p.state = 'clean' THEN clock_timestamp() END
      FROM planned p WHERE r.id = p.id`,
    [NOW, STATES],
  );
}

/** How many obligations a statement of the sweep looks at, and whether it reads the whole table. */
async function cost(name: string): Promise<{ rows: number; whole: boolean }> {
  const [plan] = await explain(client, sweepStatements[name] ?? (() => Promise.reject(new Error(name))));
  return { rows: rowsIn(plan), whole: scansIn(plan).some(({ kind }) => kind === 'Seq Scan') };
}

test(`of ${STATES.length * WAITING} obligations as many are in each state as this test says`, async () => {
  const { rows } = await client.query<{ n: number }>(
    'SELECT count(*)::int AS n FROM mayfly.revocations GROUP BY state',
  );
  expect(rows.map(({ n }) => n)).toEqual(STATES.map(() => WAITING + NOW));
});

// `readQueue` counts what is in hand, and `hasten` is about what waits: they cost as much as there is.
const counted = Object.keys(sweepStatements).filter((name) => name !== 'readQueue' && name !== 'hasten');
test.each(counted)('%s does not look at what waits', async (name) => {
  const { rows, whole } = await cost(name);
  expect(whole).toBe(false);
  expect(rows).toBeLessThan(FEW);
});

test.each(Object.entries(needed))('without %s alone it would, and this test would see it', async (index, names) => {
  await client.query(`DROP INDEX mayfly.${index}`);
  for (const name of names) {
    const { rows, whole } = await cost(name);
    expect({ name, seen: whole || rows > FEW }).toEqual({ name, seen: true });
  }
});
