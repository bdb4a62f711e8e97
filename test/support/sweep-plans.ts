import pg from 'pg';
import { claimDue, hasten } from '../../src/store/claims.ts';
import type { Queryable, Statement, Transaction } from '../../src/store/database.ts';
import {
  fallDue,
  findClaimableTargets,
  findMoments,
  markOverdue,
  readQueue,
  releaseLostClaims,
} from '../../src/store/revocations.ts';
import type { PostgresSettings } from './postgres-servers.ts';

const TARGETS = 5;

/**
 * For a server whose plans are looked at: what the planner knows is what the test says and nothing else. Its statistics are of all
 * rows, not of a sample that may miss the few of now, and no autovacuum comes in between and changes its mind.
 */
export const PLANNED: PostgresSettings = { autovacuum: 'off', default_statistics_target: 1000 };

/** All that the sweep asks of the obligations, with the limits that it asks with. */
export const sweepStatements: Readonly<Record<string, (tx: Transaction) => Promise<unknown>>> = {
  'fallDue of one target': (tx) => fallDue(tx, 'target-1', 200),
  'fallDue of all targets': (tx) => fallDue(tx, null, 200),
  releaseLostClaims: (tx) => releaseLostClaims(tx, 500),
  markOverdue: (tx) => markOverdue(tx, 30, 500),
  findClaimableTargets: (tx) => findClaimableTargets(tx),
  'findMoments at first': (tx) => findMoments(tx, 0, 60, 10),
  'findMoments later': (tx) => findMoments(tx, 20, 60, 10),
  readQueue: (tx) => readQueue(tx),
  claimDue: (tx) => claimDue(tx, 'target-1', 'worker', 5, 50),
  'claimDue of a probe': (tx) => claimDue(tx, 'target-1', 'worker', 5, 1, true),
  hasten: (tx) => hasten(tx, 'target-1'),
};

/** Tasks, each with its grant and its obligation. Where rows lie has nothing to do with when they are due, and is the same in each run. */
export async function bear(client: pg.Client, count: number): Promise<void> {
  await client.query('SELECT setseed(0.5)');
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

export interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Actual Loops': number;
  readonly 'Rows Removed by Filter'?: number;
  readonly 'Rows Removed by Index Recheck'?: number;
  readonly Plans?: readonly Plan[];
}

/** Within a transaction: runs what is asked as a prepared statement, so that it is planned as in production, and undoes it. */
export async function explain(client: pg.Client, ask: (tx: Transaction) => Promise<unknown>): Promise<Plan[]> {
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
  await ask({ now: new Date(), query, record: () => {}, decided: () => {}, used: () => {}, changed: () => {} });
  return plans;
}

function literal(value: unknown): string {
  if (value === null) return 'NULL';
  if (Array.isArray(value)) return pg.escapeLiteral(`{${value.map(String).join(',')}}`);
  if (value instanceof Date) return pg.escapeLiteral(value.toISOString());
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean')
    return pg.escapeLiteral(String(value));
  throw new Error(`A ${typeof value} is not known how to be written.`);
}

/** How the obligations themselves are come by, or the grants, in any part of a plan. */
export function scansIn(plan: Plan | undefined, table = 'revocations'): { kind: string; rows: number }[] {
  if (plan === undefined) return [];
  const kind = plan['Node Type'];
  const below = (plan.Plans ?? []).flatMap((part) => scansIn(part, table));
  if (plan['Relation Name'] !== table || !kind.endsWith('Scan')) return below;
  const looked =
    plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0) + (plan['Rows Removed by Index Recheck'] ?? 0);
  return [{ kind, rows: looked * plan['Actual Loops'] }, ...below];
}

/** How many of them were looked at. */
export function rowsIn(plan: Plan | undefined, table = 'revocations'): number {
  return scansIn(plan, table).reduce((sum, { rows }) => sum + rows, 0);
}
