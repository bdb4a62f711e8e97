import type { House } from '../../support/house.ts';

/** Rows per statement. */
const BATCH = 50_000;

/**
 * Brings the outstanding grants of the store to so many that are alive for hours, and that policy permits. There are no roles behind
 * them: what is measured is what they cost the broker and its store. The guards of states are off meanwhile, since these are born active.
 */
export async function seedOutstanding(house: House, count: number): Promise<void> {
  const [there] = await house.onStore<{ n: number }>(
    `SELECT count(*)::int AS n FROM mayfly.revocations WHERE state = 'scheduled'`,
  );
  const tables = ['tasks', 'grants', 'revocations'];
  const [, issuer] = /issuer: (\S+\/orchestrator),/.exec(house.files['trust.yaml'] ?? '') ?? [];
  for (const table of tables) await house.onStore(`ALTER TABLE mayfly.${table} DISABLE TRIGGER USER`);
  for (let made = there?.n ?? 0; made < count; made += BATCH)
    await house.onStore(
      `WITH n AS MATERIALIZED (
        SELECT gen_random_uuid() AS id, gen_random_uuid() AS task,
          clock_timestamp() + (2 + 22 * random()) * interval '1 hour' AS due FROM generate_series(1, $1)),
      tasks AS (
        INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject,
          workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
        SELECT task, task, 0, 0, $2, task, task, '', 'active', 'reconcile.invoices', 's', 'dev', 'agent-recon',
          '{"entitlements": ["ledger-db/read-invoices"], "params": {}, "maxTtlSeconds": null}', 1, clock_timestamp(), due FROM n),
      decisions AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
        SELECT id, task, 'issue', 'ledger-db/read-invoices', true, '{}', '{}', 1, '{}', clock_timestamp() FROM n),
      grants AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at, activated_at)
        SELECT id, task, task, 'ledger-db/read-invoices', 'ledger-db', '{}', false, 'active', 'mfy_' || replace(id::text, '-', ''),
          '{"revocation": "immediate"}', due, clock_timestamp(), id, 1, clock_timestamp(), clock_timestamp() FROM n)
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
      SELECT gen_random_uuid(), id, 'ledger-db', 'scheduled', due, due FROM n`,
      [Math.min(BATCH, count - made), issuer],
    );
  for (const table of tables) await house.onStore(`ALTER TABLE mayfly.${table} ENABLE TRIGGER USER`);
  for (const table of [...tables, 'decisions']) await house.onStore(`ANALYZE mayfly.${table}`);
}
