import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest';
import { MayflyClient, ProblemError } from '../../src/client/index.ts';
import { uuidv7 } from '../../src/domain/ids.ts';
import { type KillView, killView } from '../../src/http/kill-bodies.ts';
import { ask } from '../support/ask.ts';
import { operatorsOf } from '../support/operators.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startSyntheticHouse, type SyntheticHouse } from '../support/synthetic/house.ts';

const GRANTS = 5_000;
const TASKS = 50;
const AGENTS_A_REPLICA = 6;
/** Refusals that each agent must meet before it believes that it is stopped. */
const ENOUGH = 5;
const TARGETS = ['one', 'two'] as const;

let server: PostgresServer;
let house: SyntheticHouse;
/** Of each replica. */
let urls: readonly string[];
let clients: readonly MayflyClient[];
beforeAll(async () => {
  server = await startPostgres({ version: 18 });
  house = await startSyntheticHouse(
    server,
    { one: 'handles', two: 'handles' },
    {
      ...{ MAYFLY_CALLS_PER_ADDRESS: '999999999', MAYFLY_CALLS_PER_CALLER: '999999999' },
      MAYFLY_MINTS_PER_TASK: '999999999',
    },
  );
  urls = [house.url, (await house.startReplica()).url];
  const token = async () =>
    (await house.issuer.signWorkloadToken({ subject: 'agent', audience: house.url, ttl_seconds: 900 })).token;
  clients = urls.map((url) => new MayflyClient({ url, token }));
});
afterAll(async () => {
  await house?.stop();
  await server?.stop();
});
afterEach(async () => {
  await house.onStore(`UPDATE mayfly.kills SET lifted_at = now(), lifted_by = 'test' WHERE lifted_at IS NULL`);
});

/** Grants that live, in the store and in the targets, with the obligations to end them. */
async function bear(tasks: readonly string[]): Promise<void> {
  const rows = Array.from({ length: GRANTS }, (_, n) => {
    const id = uuidv7();
    return { id, task: tasks[n % tasks.length]?.slice(5), target: TARGETS[n % 2], handle: `syn-${id}` };
  });
  const facts = Object.fromEntries(
    TARGETS.map((name) => [name, { incarnation: house.target(name).system.incarnation }] as const),
  );
  const [installation] = await house.onStore<{ id: string }>('SELECT id FROM mayfly.installation');
  for (const { id, handle, target = 'one' } of rows)
    house
      .target(target)
      .system.make(
        { handle, grantId: id, installation: installation?.id ?? '', endsAt: Date.now() + 900_000 },
        Number.POSITIVE_INFINITY,
      );
  await house.onStore(
    `WITH n AS MATERIALIZED (SELECT * FROM jsonb_to_recordset($1) AS n (id uuid, task uuid, target text, handle text)),
      decisions AS (
        INSERT INTO mayfly.decisions (id, task_id, action, resource, permitted, policies, errors, revision, inputs, decided_at)
        SELECT id, task, 'issue', target, true, '{}', '{}', 1, '{}', clock_timestamp() FROM n),
      grants AS (
        INSERT INTO mayfly.grants (id, task_id, root_id, entitlement, target, params, sink, state, handle, facts, guarantee, deadline, mint_by,
          decision_id, decided_revision, created_at)
        SELECT id, task, task, target || '/use', target, '{}', false, 'minting', handle, $2::jsonb->target, $3,
          clock_timestamp() + interval '15 minutes', clock_timestamp(), id, 1, clock_timestamp() FROM n)
      INSERT INTO mayfly.revocations (id, grant_id, target, state, due_at, try_at)
      SELECT gen_random_uuid(), id, target, 'scheduled', clock_timestamp() + interval '15 minutes', clock_timestamp() + interval '15 minutes' FROM n`,
    [JSON.stringify(rows), JSON.stringify(facts), JSON.stringify({ revocation: 'immediate', native_expiry: true })],
  );
  await house.onStore(
    `UPDATE mayfly.grants SET state = 'active', activated_at = clock_timestamp() WHERE state = 'minting' AND handle = ANY($1)`,
    [rows.map(({ handle }) => handle)],
  );
}

/** How many can still be used. */
function accepted(...names: string[]): number {
  return names
    .map((name) => house.target(name).system)
    .reduce((sum, system) => sum + system.all().filter(({ handle }) => system.accepts(handle)).length, 0);
}

async function signed(): Promise<string> {
  const { token } = await house.issuer.signTaskRequest({
    ...{ audience: house.url, workload_subject: 'agent', subject: 'user:dana', purpose: 'test' },
    ...{ entitlements: TARGETS.map((name) => `${name}/use`), ttl_seconds: 900 },
  });
  return token;
}

/** Opens tasks and asks for grants on a target, again and again, until it is told often enough that it is stopped. */
async function askOn(client: MayflyClient, entitlement: string, begun: () => void): Promise<string[]> {
  const refusals: string[] = [];
  const tasks: string[] = [];
  while (refusals.filter((code) => code === 'killed').length < ENOUGH) {
    try {
      if (tasks.length === 0 || Math.random() < 0.3) tasks.push((await client.openTask(await signed())).task.id);
      await client.issue(tasks.at(-1) ?? '', { entitlement });
      begun();
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      refusals.push(error.code);
    }
  }
  return refusals;
}

async function kill(body: object): Promise<KillView> {
  const token = await operatorsOf(house).token('operator');
  const reply = await ask(urls[1] ?? '', 'POST', '/v1/kill', { token, body: { ...body, reason: 'the storm' } });
  expect([reply.status, reply.body['code']]).toEqual([201, undefined]);
  return killView.parse(reply.body);
}

test.each([
  [{ scope: 'agent', id: 'dev:agent' }, TARGETS],
  [{ scope: 'target', id: 'one' }, ['one']],
  [{ scope: 'all' }, TARGETS],
] as const)(
  '%j on two replicas with 5,000 live grants: from its commit on none becomes active, and none is left',
  async (body, targets) => {
    const tasks = await Promise.all(
      Array.from({ length: TASKS }, async () => (await house.client.openTask(await signed())).task.id),
    );
    await bear(tasks);
    expect(accepted(...targets)).toBeGreaterThanOrEqual((GRANTS / 2) * targets.length);

    let issued = 0;
    const asking = Promise.all(
      clients.flatMap((client) =>
        Array.from({ length: AGENTS_A_REPLICA }, () => askOn(client, 'one/use', () => void issued++)),
      ),
    );
    await vi.waitFor(() => expect(issued).toBeGreaterThan(4 * AGENTS_A_REPLICA), { timeout: 60_000, interval: 5 });
    const { ended, since } = await kill(body);
    expect(ended.grants).toBeGreaterThanOrEqual((GRANTS / 2) * targets.length);
    const refusals = await asking;
    // Else none of them met it under way.
    expect(refusals.flat().length).toBeGreaterThanOrEqual(2 * AGENTS_A_REPLICA * ENOUGH);

    const late = await house.onStore(
      'SELECT id FROM mayfly.grants WHERE activated_at > $1::timestamptz AND target = ANY($2)',
      [since, targets],
    );
    expect(late).toEqual([]);
    const alive = await house.onStore(
      `SELECT id FROM mayfly.grants WHERE state IN ('minting', 'active') AND target = ANY($1)`,
      [targets],
    );
    expect(alive).toEqual([]);
    await vi.waitFor(() => expect(accepted(...targets)).toBe(0), { timeout: 60_000, interval: 50 });
    await vi.waitFor(
      async () =>
        expect(
          await house.onStore(
            `SELECT state FROM mayfly.revocations WHERE target = ANY($1) AND state IN ('scheduled', 'due', 'running') LIMIT 1`,
            [targets],
          ),
        ).toEqual([]),
      { timeout: 60_000, interval: 100 },
    );
    expect(accepted(...targets)).toBe(0);
    const told = await house.onStore<{ count: number }>(
      `SELECT count(*)::int AS count FROM mayfly.audit_events WHERE type = 'grant.ended' AND payload->>'kill_id' =
        (SELECT 'kill_' || id FROM mayfly.kills WHERE lifted_at IS NULL)`,
    );
    expect(told).toEqual([{ count: ended.grants }]);
  },
  180_000,
);
