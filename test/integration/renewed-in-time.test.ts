import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type GrantId, uuidv7 } from '../../src/domain/ids.ts';
import { Database } from '../../src/store/database.ts';
import { fallDue } from '../../src/store/revocations.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { createStore } from '../support/store.ts';

const TARGET = 'db';
const GATE = 7;

let server: PostgresServer;
let owner: pg.Client;
let db: Database;

beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  const store = await createStore(server);
  owner = new pg.Client({ connectionString: store.ownerUrl.reveal() });
  await owner.connect();
  // Grants are locked as they are ended, one after another, so that there is a moment between two of them.
  for (const join of ['hashjoin', 'mergejoin', 'material'])
    await owner.query(`ALTER DATABASE ${store.database} SET enable_${join} = off`);
  await owner.query(`CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_advisory_xact_lock_shared(${GATE}); RETURN NEW; END $$`);
  await owner.query(`CREATE TRIGGER gate BEFORE UPDATE ON mayfly.grants FOR EACH ROW
    WHEN (NEW.state = 'revoking') EXECUTE FUNCTION gate()`);
  db = new Database({ url: store.runtimeUrl, connections: 2, onError: () => {} });
});
afterAll(async () => {
  await db?.close();
  await owner?.end();
  await server?.stop();
});

/** An active grant whose deadline has come. */
async function bear(): Promise<GrantId> {
  const id = uuidv7() as GrantId;
  await owner.query(
    `WITH task AS (
        INSERT INTO mayfly.tasks (id, root_id, depth, max_depth, issuer, external_id, jti, request_digest, state, purpose, subject,
          workload_source, workload_subject, ceiling, opened_revision, created_at, not_after)
        VALUES ($1::uuid, $1::uuid, 0, 0, 'i', $1::uuid::text, $1::uuid::text, '', 'active', 'p', 's', 'w', 'w', '{}', 1, now(), now() + interval '1 hour')),
      decision AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
        VALUES ($1::uuid, $1::uuid, 'issue', 'e', true, '{}', '{}', 1, '{}', now())),
      born AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at)
        VALUES ($1::uuid, $1::uuid, $1::uuid, 'e', $2, '{}', false, 'minting', $1::uuid::text, '{}', now(), now(), $1::uuid, 1, now()))
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at) VALUES (gen_random_uuid(), $1::uuid, $2, 'scheduled', now(), now())`,
    [id, TARGET],
  );
  await owner.query(`UPDATE mayfly.grants SET state = 'active', activated_at = now() WHERE id = $1`, [id]);
  return id;
}

async function until(fact: () => Promise<boolean>): Promise<void> {
  while (!(await fact()));
}

test('a grant whose deadline was moved just before it fell due keeps its new one', async () => {
  const [expired, renewed] = [await bear(), await bear()];
  await owner.query('SELECT pg_advisory_lock($1)', [GATE]);
  const fallen = db.transaction({}, async (tx) => await fallDue(tx, TARGET, 10));
  await until(async () => {
    const { rowCount } = await owner.query(
      `SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted`,
      [GATE],
    );
    return rowCount === 1;
  });
  // What a renewal does, or an activation: both move the obligation in the transaction that moves the grant.
  await owner.query(
    `WITH moved AS (UPDATE mayfly.grants SET deadline = now() + interval '1 hour' WHERE id = $1 RETURNING id)
    UPDATE mayfly.revocations SET due_at = now() + interval '1 hour', try_at = now() + interval '1 hour' WHERE grant_id IN (SELECT id FROM moved)`,
    [renewed],
  );
  await owner.query('SELECT pg_advisory_unlock($1)', [GATE]);
  expect((await fallen).map(({ grantId }) => grantId)).toEqual([expired]);
  const { rows } = await owner.query('SELECT state FROM mayfly.grants WHERE id = $1', [renewed]);
  expect(rows).toEqual([{ state: 'active' }]);
});
