import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { claimDue } from '../../src/store/claims.ts';
import type { Queryable } from '../../src/store/database.ts';
import { findLive } from '../../src/store/fence-writers.ts';
import { findAlive } from '../../src/store/reconcile-page.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';
import { bear, explain, PLANNED, rowsIn, scansIn, sweepStatements } from '../support/sweep-plans.ts';

/** Obligations that are hours from due. */
const OUTSTANDING = 20_000;
/** How many are in hand now in each state that the sweep looks for, where any are. */
const IN_HAND = 20;
/** A prepared statement may change its plan for good after five runs. */
const RUNS = 8;
/** Fewer than so many may be looked at: a few times what is in hand, and far from what is outstanding. */
const FEW = 20 * IN_HAND;
/** More than live on one of five targets, and fewer than ever did behind a history. */
const LIVING = OUTSTANDING / 5 + 500;

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: PLANNED });
});
afterAll(async () => {
  await server?.stop();
});

describe.each([
  ['nothing is due', 0, 0],
  ['some are in hand, behind a history', 5_000, IN_HAND],
])(`of ${OUTSTANDING} obligations that are far from due, where %s,`, (_, done, inHand) => {
  let client: pg.Client;
  beforeAll(async () => {
    const store = await createStore(server);
    client = new pg.Client({ connectionString: store.ownerUrl.reveal() });
    await client.connect();
    await bear(client, OUTSTANDING + done + 4 * inHand);
    if (done > 0) await live(client, done + 4 * inHand, inHand);
    for (const table of ['tasks', 'grants', 'revocations']) await client.query(`ANALYZE mayfly.${table}`);
  });
  afterAll(async () => {
    await client?.end();
  });
  beforeEach(async () => {
    await client.query('BEGIN');
  });
  afterEach(async () => {
    await client.query('ROLLBACK; DEALLOCATE ALL');
  });

  test('are as many as this test says', async () => {
    const { rows } = await client.query(
      'SELECT state, count(*)::int AS n FROM mayfly.revocations GROUP BY 1 ORDER BY 1',
    );
    const early = ['contained', 'due', 'running'].map((state) => ({ state, n: inHand }));
    const counted = [...early, { state: 'clean', n: done }, { state: 'scheduled', n: OUTSTANDING + inHand }];
    expect(rows).toEqual(counted.filter(({ n }) => n > 0).sort((a, b) => (a.state < b.state ? -1 : 1)));
  });

  test.each(Object.entries(sweepStatements))('%s looks at those of now alone', async (_name, ask) => {
    for (let run = 0; run < RUNS; run++) {
      const [seen, ...more] = await explain(client, ask);
      expect(more).toEqual([]);
      expect(scansIn(seen).filter(({ kind }) => kind === 'Seq Scan')).toEqual([]);
      expect(rowsIn(seen)).toBeLessThan(FEW);
    }
  });

  test('claimDue looks at no more on a paused target', async () => {
    await client.query(
      `INSERT INTO mayfly.target_controls VALUES ('target-1', true, false, 'a test', 'a test', clock_timestamp())`,
    );
    for (let run = 0; run < RUNS; run++) {
      const [seen] = await explain(client, (tx) => claimDue(tx, 'target-1', 'worker', 5, 50));
      expect(scansIn(seen).filter(({ kind }) => kind === 'Seq Scan')).toEqual([]);
      expect(rowsIn(seen)).toBeLessThan(FEW);
    }
  });

  test('what lives on a target is found among all that ended there, in one document’s view and page by page', async () => {
    const looks = [
      (tx: Queryable) => findLive(tx, 'target-1'),
      (tx: Queryable) => findAlive(tx, 'target-1', new Date(), null, null, 500),
    ];
    for (const look of looks) {
      for (let run = 0; run < RUNS; run++) {
        const [seen] = await explain(client, look);
        expect(scansIn(seen, 'grants').map(({ kind }) => kind)).not.toContain('Seq Scan');
        expect(rowsIn(seen, 'grants')).toBeLessThan(LIVING);
      }
    }
  });

  test('without the indexes each of them would look at all, and this test would see it', async () => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = 'mayfly.revocations'::regclass AND indpred IS NOT NULL`,
    );
    expect(rows.length).toBeGreaterThan(0);
    await client.query(`DROP INDEX ${rows.map(({ name }) => name).join(', ')}`);
    for (const [name, ask] of Object.entries(sweepStatements)) {
      const [seen] = await explain(client, ask);
      expect(
        scansIn(seen).map(({ kind }) => kind),
        name,
      ).toContain('Seq Scan');
      expect(rowsIn(seen), name).toBeGreaterThan(FEW);
    }
  });
});

/** Lets the time of some come, and all of those go on step by step but a few that stay behind at each. */
async function live(client: pg.Client, count: number, stay: number): Promise<void> {
  await client.query(
    `UPDATE mayfly.revocations SET due_at = due_at - interval '2 days', try_at = try_at - interval '2 days'
     WHERE id IN (SELECT id FROM mayfly.revocations ORDER BY id LIMIT $1)`,
    [count],
  );
  const steps = [
    ['scheduled', `state = 'due'`],
    ['due', `state = 'running', claim_number = 1, claimed_until = clock_timestamp()`],
    ['running', `state = 'contained', contained_at = clock_timestamp()`],
    ['contained', `state = 'clean', clean_at = clock_timestamp()`],
  ];
  for (const [from, set] of steps) {
    await client.query(
      `UPDATE mayfly.revocations SET ${set} WHERE id IN (
         SELECT id FROM mayfly.revocations WHERE state = $1 AND due_at < clock_timestamp() ORDER BY id OFFSET $2)`,
      [from, stay],
    );
  }
  await client.query(
    `UPDATE mayfly.grants g SET state = 'revoking', ended_at = clock_timestamp(), ended_by = 'expired'
     FROM mayfly.revocations r WHERE r.grant_id = g.id AND r.state <> 'scheduled'`,
  );
  await client.query(
    `UPDATE mayfly.grants g SET state = 'revoked'
     FROM mayfly.revocations r WHERE r.grant_id = g.id AND r.state IN ('contained', 'clean')`,
  );
}
