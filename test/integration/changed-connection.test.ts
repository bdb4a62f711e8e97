import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { Credential, GrantBody } from '../../src/client/index.ts';
import { type House, makeTarget, prepareTarget, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const READ = 'ledger-db/read-invoices';
const TARGET = 'targets/ledger-db.yaml';

/** Grants are made at the old place, which the proxy leads to. The new one is another cluster, just as well prepared. */
let oldServer: PostgresServer;
let newServer: PostgresServer;
let newDatabase: string;
let proxy: TcpProxy;
let house: House;

beforeAll(async () => {
  [oldServer, newServer] = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
  proxy = await startTcpProxy(oldServer.port);
  house = await startHouse({ server: oldServer, targetPort: proxy.port });
  newDatabase = await prepared(newServer);
});
afterAll(async () => {
  await house?.stop();
  await proxy?.close();
  await Promise.all([oldServer?.stop(), newServer?.stop()]);
});
beforeEach(async () => {
  await house.broker.apply(house.files);
});

/** The catalog with the target's connection leading elsewhere. */
function moved(port: number, database = house.targetDatabase): Record<string, string> {
  const before = house.files[TARGET] ?? '';
  const after = before.replace(/port: \d+, database: \w+/, `port: ${port}, database: ${database}`);
  expect(after).not.toBe(before);
  return { ...house.files, [TARGET]: after };
}

/** Another database that belongs to the same installation, under the same login. */
async function prepared(server: PostgresServer): Promise<string> {
  const database = await makeTarget(server);
  const { installation } = house.broker;
  await prepareTarget(server, moved(server.port, database), installation, house.targetPassword);
  return database;
}

async function query<R extends pg.QueryResultRow>(connectionString: string, text: string, values: unknown[] = []) {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query<R>(text, values)).rows;
  } finally {
    await client.end();
  }
}

const handleOf = (grant: GrantBody) => `mfy_${grant.id.slice(4).replaceAll('-', '')}`;

/** What a database and its cluster know of a grant: the role, and the provider's own note of it. */
async function tracesIn(server: PostgresServer, database: string, grant: GrantBody) {
  const [row] = await query<{ role: boolean; noted: boolean; fenced: boolean }>(
    server.superuserUrl(database),
    `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS role, EXISTS (SELECT FROM mayfly.handle WHERE handle = $1) AS noted,
       EXISTS (SELECT FROM mayfly.handle WHERE handle = $1 AND fenced_at IS NOT NULL) AS fenced`,
    [handleOf(grant)],
  );
  return row;
}

async function clusterOf(server: PostgresServer): Promise<string> {
  const [row] = await query<{ id: string }>(
    server.superuserUrl(),
    'SELECT system_identifier::text AS id FROM pg_control_system()',
  );
  return row?.id ?? '';
}

async function issue() {
  const { task } = await house.client().openTask(await house.sign());
  const { grant, credential } = await house.client().issue(task.id, { entitlement: READ, ttl_seconds: 300 });
  return { task, grant, credential };
}

async function attemptsOf(grant: GrantBody): Promise<number> {
  const text = 'SELECT attempts FROM mayfly.revocations WHERE grant_id = $1';
  const [row] = await house.onStore<{ attempts: number }>(text, [grant.id.slice(4)]);
  return row?.attempts ?? 0;
}

/** A session of the agent, and when it is ended by somebody else. */
async function session(credential: Credential): Promise<{ client: pg.Client; ended: Promise<unknown> }> {
  const client = new pg.Client({ connectionString: String(credential['url']) });
  client.on('error', () => {});
  const ended = new Promise((resolve) => client.once('end', resolve));
  await client.connect();
  await client.query('SELECT 1 FROM invoices');
  return { client, ended };
}

async function untilClean(grant: GrantBody): Promise<GrantBody> {
  return await vi.waitFor(
    async () => {
      const now = await house.client().grant(grant.id);
      expect(now).toMatchObject({ state: 'revoked', revocation: { state: 'clean' } });
      return now;
    },
    { timeout: 60_000, interval: 50 },
  );
}

describe('when the address in the catalog leads to another cluster', () => {
  test('a grant is ended where it was made, session and all, and the new place never hears of it', async () => {
    const { task, grant, credential } = await issue();
    const { ended } = await session(credential);
    await house.broker.apply(moved(newServer.port, newDatabase));

    const done = await house.client().complete(task.id, { wait: 25 });
    expect(done.revocations).toMatchObject([
      {
        grant_id: grant.id,
        state: expect.stringMatching(/contained|clean/),
        evidence: { system_identifier: await clusterOf(oldServer) },
      },
    ]);
    await ended;
    await untilClean(grant);
    expect(await attemptsOf(grant)).toBe(1);
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
    expect(await tracesIn(newServer, newDatabase, grant)).toMatchObject({ role: false, noted: false });
  });

  test('also a grant without facts that this catalog has permitted again', async () => {
    const { task, grant } = await issue();
    await house.onStore('UPDATE mayfly.grants SET facts = NULL WHERE id = $1', [grant.id.slice(4)]);
    await house.broker.apply(moved(newServer.port, newDatabase));
    const retained = `SELECT 1 FROM mayfly.grants g JOIN mayfly.catalog_active a ON a.revision = g.retained_revision WHERE g.id = $1`;
    await expect.poll(() => house.onStore(retained, [grant.id.slice(4)]), { timeout: 60_000 }).toHaveLength(1);
    await house.client().complete(task.id, { wait: 25 });
    await untilClean(grant);
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
  });

  test('a grant whose facts were lost, while its old address is dead, is ended only once that is back', async () => {
    const { task, grant, credential } = await issue();
    const { ended } = await session(credential);
    await house.onStore('UPDATE mayfly.grants SET facts = NULL WHERE id = $1', [grant.id.slice(4)]);
    await house.broker.apply(moved(newServer.port, newDatabase));
    proxy.retarget(1);
    proxy.cut();
    try {
      await house.client().complete(task.id);
      await expect.poll(() => attemptsOf(grant), { timeout: 60_000 }).toBeGreaterThan(2);
      expect(await house.client().grant(grant.id)).toMatchObject({ state: 'revoking' });
      expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: true, fenced: false });
      expect(await tracesIn(newServer, newDatabase, grant)).toMatchObject({ noted: false });
    } finally {
      proxy.retarget(oldServer.port);
    }
    await ended;
    const after = await untilClean(grant);
    expect(after.revocation?.evidence).toMatchObject({ system_identifier: await clusterOf(oldServer) });
  });

  test('a grant whose facts were lost is ended where it was made: its absence elsewhere proves nothing', async () => {
    const { task, grant, credential } = await issue();
    const { ended } = await session(credential);
    await house.onStore('UPDATE mayfly.grants SET facts = NULL WHERE id = $1', [grant.id.slice(4)]);
    await house.broker.apply(moved(newServer.port, newDatabase));

    await house.client().complete(task.id, { wait: 25 });
    const after = await untilClean(grant);
    expect(after.revocation?.evidence).toMatchObject({ system_identifier: await clusterOf(oldServer) });
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
    expect(await tracesIn(newServer, newDatabase, grant)).toMatchObject({ role: false, noted: false });
    await ended;
  });

  test('what is made and ended after the change is made and ended at the new place', async () => {
    const before = await issue();
    await house.broker.apply(moved(newServer.port, newDatabase));
    const after = await issue();
    expect(after.credential).toMatchObject({ port: newServer.port, database: newDatabase });
    expect(await tracesIn(newServer, newDatabase, after.grant)).toMatchObject({ role: true, fenced: false });

    await Promise.all([before, after].map(({ task }) => house.client().complete(task.id, { wait: 25 })));
    const [first, second] = [await untilClean(before.grant), await untilClean(after.grant)];
    expect(first.revocation?.evidence).toMatchObject({ system_identifier: await clusterOf(oldServer) });
    expect(second.revocation?.evidence).toMatchObject({ system_identifier: await clusterOf(newServer) });
    expect(await tracesIn(oldServer, house.targetDatabase, before.grant)).toMatchObject({ role: false });
    expect(await tracesIn(newServer, newDatabase, after.grant)).toMatchObject({ role: false, fenced: true });
  });

  test('a replica that started after the change finds the old place too, revisions later', async () => {
    const { task, grant } = await issue();
    await house.broker.apply(moved(newServer.port, newDatabase));
    await house.broker.apply({
      ...moved(newServer.port, newDatabase),
      'purposes.yaml': `${house.files['purposes.yaml']}\n`,
    });
    await house.broker.stop();
    house.broker = await house.restart();

    await house.client().complete(task.id, { wait: 25 });
    await untilClean(grant);
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
    expect(await tracesIn(newServer, newDatabase, grant)).toMatchObject({ noted: false });
  });
});

test('when the target stands in the catalog no more, its grants are ended where they were made', async () => {
  const { task, grant } = await issue();
  // Another target takes its name's place in the catalog, under a name of its own.
  const renamed = Object.entries(moved(newServer.port, newDatabase)).map(([path, text]) => [
    path.replace('ledger-db', 'other-db'),
    text.replaceAll('ledger-db', 'other-db'),
  ]);
  await house.broker.apply(Object.fromEntries(renamed));
  await house.client().complete(task.id, { wait: 25 });
  await untilClean(grant);
  expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
});

test('when the same cluster is reached at another address and the old one is dead, its grants are ended at once', async () => {
  const { task, grant, credential } = await issue();
  expect(credential).toMatchObject({ port: proxy.port });
  await house.broker.apply(moved(oldServer.port));
  proxy.blackHole();
  proxy.cut();
  try {
    await house.client().complete(task.id, { wait: 25 });
    await untilClean(grant);
    expect(await attemptsOf(grant)).toBe(1);
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
  } finally {
    proxy.heal();
    proxy.cut();
  }
});

test('when another database of the same cluster is named, what a role owns in the first one does not keep it', async () => {
  const { task, grant, credential } = await issue();
  const { client, ended } = await session(credential);
  // Whoever may log in may make a large object: a role that owns one can be dropped only from within its database.
  await client.query('SELECT lo_create(0)');
  await house.broker.apply(moved(oldServer.port, await prepared(oldServer)));
  await house.client().complete(task.id, { wait: 25 });
  await ended;
  await untilClean(grant);
  expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
});

test('… and what lost its facts as well, once it is recognised there', async () => {
  const { task, grant, credential } = await issue();
  const { ended } = await session(credential);
  await house.onStore('UPDATE mayfly.grants SET facts = NULL WHERE id = $1', [grant.id.slice(4)]);
  await house.broker.apply(moved(oldServer.port));
  proxy.retarget(1);
  proxy.cut();
  try {
    await house.client().complete(task.id, { wait: 25 });
    await ended;
    await untilClean(grant);
    expect(await attemptsOf(grant)).toBe(1);
    expect(await tracesIn(oldServer, house.targetDatabase, grant)).toMatchObject({ role: false, fenced: true });
  } finally {
    proxy.retarget(oldServer.port);
  }
});

test('when another database of the same cluster is named, the first one does not count the grant for ever', async () => {
  const { task, grant } = await issue();
  await house.broker.apply(moved(oldServer.port, await prepared(oldServer)));
  await house.client().complete(task.id, { wait: 25 });
  await untilClean(grant);
  expect(await attemptsOf(grant)).toBe(1);
  await expect
    .poll(() => tracesIn(oldServer, house.targetDatabase, grant), { timeout: 60_000 })
    .toMatchObject({ role: false, noted: true, fenced: true });
});
