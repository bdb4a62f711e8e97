import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { claimDue } from '../../src/store/claims.ts';
import type { Queryable, Statement, Transaction } from '../../src/store/database.ts';
import {
  fallDue,
  findClaimableTargets,
  findMoments,
  markOverdue,
  readQueue,
  releaseLostClaims,
} from '../../src/store/revocations.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';

/** Obligations that are hours from due. */
const OUTSTANDING = 20_000;
/** How many are in hand now in each state that the sweep looks for, where any are. */
const IN_HAND = 20;
const TARGETS = 5;
/** A prepared statement may change its plan for good after five runs. */
const RUNS = 8;
/** Fewer than so many may be looked at: a few times what is in hand, and far from what is outstanding. */
const FEW = 20 * IN_HAND;

/** All that the sweep asks of the obligations, with the limits that it asks with. */
const statements: Readonly<Record<string, (tx: Transaction) => Promise<unknown>>> = {
  'fallDue of one target': (tx) => fallDue(tx, 'target-1', 200),
  'fallDue of all targets': (tx) => fallDue(tx, null, 200),
  releaseLostClaims: (tx) => releaseLostClaims(tx, 500),
  markOverdue: (tx) => markOverdue(tx, 30, 500),
  findClaimableTargets: (tx) => findClaimableTargets(tx),
  'findMoments at first': (tx) => findMoments(tx, 0, 60, 10),
  'findMoments later': (tx) => findMoments(tx, 20, 60, 10),
  readQueue: (tx) => readQueue(tx),
  claimDue: (tx) => claimDue(tx, 'target-1', 'worker', 5, 50),
};

let server: PostgresServer;
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
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

  test.each(Object.entries(statements))('%s looks at those of now alone', async (_name, ask) => {
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

  test('without the indexes each of them would look at all, and this test would see it', async () => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT indexrelid::regclass::text AS name FROM pg_index WHERE indrelid = 'mayfly.revocations'::regclass AND indpred IS NOT NULL`,
    );
    expect(rows.length).toBeGreaterThan(0);
    await client.query(`DROP INDEX ${rows.map(({ name }) => name).join(', ')}`);
    for (const [name, ask] of Object.entries(statements)) {
      const [seen] = await explain(client, ask);
      expect(
        scansIn(seen).map(({ kind }) => kind),
        name,
      ).toContain('Seq Scan');
      expect(rowsIn(seen), name).toBeGreaterThan(FEW);
    }
  });
});

/** Tasks, each with its grant and its obligation. Where rows lie has nothing to do with when they are due. */
async function bear(client: pg.Client, count: number): Promise<void> {
  await client.query(
    `WITH n AS MATERIALIZED (
        SELECT i, gen_random_uuid() AS id, gen_random_uuid() AS task, 'target-' || i % $2 AS target,
          clock_timestamp() + (1 + 23 * random()) * interval '1 hour' AS due FROM generate_series(1, $1) i),
      tasks AS (
        INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject,
          workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
        SELECT task, task, 0, 0, 'i', task, task, '', 'active', 'p', 's', 'w', 'w', '{}', 1, clock_timestamp(), due FROM n),
      decisions AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
        SELECT id, task, 'issue', 'e', true, '{}', '{}', 1, '{}', clock_timestamp() FROM n),
      grants AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at)
        SELECT id, task, task, 'e', target, '{}', false, 'minting', 'h-' || i, '{}', due, clock_timestamp(), id, 1, clock_timestamp() FROM n)
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
      SELECT gen_random_uuid(), id, target, 'scheduled', due, due FROM n`,
    [count, TARGETS],
  );
}

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

interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Actual Loops': number;
  readonly 'Rows Removed by Filter'?: number;
  readonly 'Rows Removed by Index Recheck'?: number;
  readonly Plans?: readonly Plan[];
}

/** Within a transaction: runs what is asked as a prepared statement, so that it is planned as in production, and undoes it. */
async function explain(client: pg.Client, ask: (tx: Transaction) => Promise<unknown>): Promise<Plan[]> {
  const plans: Plan[] = [];
  const query: Queryable['query'] = async ({ name = 'nameless', text, values }: Statement) => {
    const known = await client.query('SELECT 1 FROM pg_prepared_statements WHERE name = $1', [name]);
    if (known.rowCount === 0) await client.query(`PREPARE ${name} AS ${text}`);
    const said = values.map(literal).join(', ');
    await client.query('SAVEPOINT before');
    const { rows } = await client.query<{ 'QUERY PLAN': { Plan: Plan }[] }>(
      `EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE ${name}${said === '' ? '' : `(${said})`}`,
    );
    await client.query('ROLLBACK TO before');
    // Without a name it is planned anew each time.
    if (name === 'nameless') await client.query('DEALLOCATE nameless');
    plans.push(...rows.flatMap((row) => row['QUERY PLAN'].map((each) => each.Plan)));
    return [];
  };
  await ask({ now: new Date(), query, record: () => {}, changed: () => {} });
  return plans;
}

function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (value instanceof Date) return pg.escapeLiteral(value.toISOString());
  if (typeof value === 'string' || typeof value === 'number') return pg.escapeLiteral(String(value));
  throw new Error(`A ${typeof value} is not known how to be written.`);
}

/** How the obligations themselves are come by, in any part of a plan. */
function scansIn(plan: Plan | undefined): { kind: string; rows: number }[] {
  if (plan === undefined) return [];
  const kind = plan['Node Type'];
  const below = (plan.Plans ?? []).flatMap(scansIn);
  if (plan['Relation Name'] !== 'revocations' || !kind.endsWith('Scan')) return below;
  const looked =
    plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0) + (plan['Rows Removed by Index Recheck'] ?? 0);
  return [{ kind, rows: looked * plan['Actual Loops'] }, ...below];
}

/** How many obligations were looked at. */
function rowsIn(plan: Plan | undefined): number {
  return scansIn(plan).reduce((sum, { rows }) => sum + rows, 0);
}
