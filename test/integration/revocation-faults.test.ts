import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { GrantBody } from '../../src/client/index.ts';
import { type House, type HouseOptions, startHouse } from '../support/house.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const backends = ['postgres', ...(redisAvailable() ? ['redis'] : [])] as const;

/** What stands in the store and in the target for some grants. */
async function stateOf(house: House, grants: readonly GrantBody[]) {
  const ids = grants.map(({ id }) => id.slice(4));
  const rows = await house.onStore<{
    state: string;
    revocation: string;
    ended_by: string | null;
    late: number | null;
    attempts: number;
  }>(
    `SELECT g.state, r.state AS revocation, g.ended_by, extract(epoch FROM r.contained_at - r.due_at)::float8 AS late, r.attempts
     FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = ANY($1)`,
    [ids],
  );
  const roles = await house.onTarget('SELECT rolname FROM pg_roles WHERE rolname = ANY($1)', [
    ids.map((id) => `mfy_${id.replaceAll('-', '')}`),
  ]);
  return { rows, roles: roles.length };
}

async function untilGone(house: House, grants: readonly GrantBody[]): Promise<number> {
  await vi.waitFor(
    async () => {
      const { rows, roles } = await stateOf(house, grants);
      expect(rows.map((row) => row.revocation)).toEqual(grants.map(() => 'clean'));
      expect(roles).toBe(0);
    },
    { timeout: 60_000, interval: 100 },
  );
  const { rows } = await stateOf(house, grants);
  return Math.max(...rows.map(({ late }) => late ?? 0));
}

async function mintMany(house: House, count: number, ttl?: number): Promise<{ taskId: string; grants: GrantBody[] }> {
  const client = house.client();
  const { task } = await client.openTask(await house.sign());
  const issued = await Promise.all(
    Array.from({ length: count }, () =>
      client.issue(task.id, {
        entitlement: 'ledger-db/read-invoices',
        ...(ttl === undefined ? {} : { ttl_seconds: ttl }),
      }),
    ),
  );
  return { taskId: task.id, grants: issued.map(({ grant }) => grant) };
}

describe.each(backends)('with alarms on %s', (backend) => {
  let storeServer: PostgresServer;
  let targetServer: PostgresServer;
  let redis: RedisServer | undefined;
  let proxy: TcpProxy;
  let house: House;

  beforeAll(async () => {
    [storeServer, targetServer] = await Promise.all([startPostgres({ version: 18 }), startPostgres({ version: 18 })]);
    redis = backend === 'redis' ? await startRedis() : undefined;
    proxy = await startTcpProxy(targetServer.port);
    const options: HouseOptions = {
      server: storeServer,
      targetServer,
      targetPort: proxy.port,
      inProcess: false,
      env: { MAYFLY_MINT_SECONDS: '3', ...(redis === undefined ? {} : { MAYFLY_REDIS_URL: redis.url }) },
    };
    house = await startHouse(options);
  });
  afterAll(async () => {
    await house?.stop();
    await proxy?.close();
    await redis?.stop();
    await Promise.all([storeServer?.stop(), targetServer?.stop()]);
  });

  test('a broker killed in the middle of a revocation loses none: another takes over in seconds', async () => {
    const { taskId, grants } = await mintMany(house, 12);
    proxy.delay(150);
    await house.client().cancel(taskId);
    await vi.waitFor(
      async () => expect((await stateOf(house, grants)).rows.some((row) => row.revocation === 'running')).toBe(true),
      { timeout: 60_000, interval: 10 },
    );
    await house.broker.signal('SIGKILL');
    proxy.delay(0);
    house.broker = await house.restart();
    const late = await untilGone(house, grants);
    // A claim lives 5 s without a heartbeat, then the sweeper gives it to another: not the minute after which BullMQ would.
    expect(late).toBeLessThan(45);
  });

  test('a broker killed between intent and mint leaves no credential', async () => {
    const client = house.client();
    const { task } = await client.openTask(await house.sign());
    await client.issue(task.id, { entitlement: 'ledger-db/read-invoices' });
    proxy.delay(400);
    const asked = client.issue(task.id, { entitlement: 'ledger-db/read-invoices' }).catch((error: unknown) => error);
    const minting = () =>
      house.onStore<{ id: string }>(`SELECT id FROM mayfly.grants WHERE task_id = $1 AND state = 'minting'`, [
        task.id.slice(5),
      ]);
    const [intent] = await vi.waitFor(
      async () => {
        const rows = await minting();
        expect(rows).toHaveLength(1);
        return rows;
      },
      { timeout: 60_000, interval: 5 },
    );
    await house.broker.signal('SIGKILL');
    proxy.delay(0);
    expect(await asked).toBeInstanceOf(Error);
    house.broker = await house.restart();
    await vi.waitFor(
      async () => {
        const [row] = await house.onStore(
          `SELECT g.state, g.ended_by, r.state AS revocation FROM mayfly.grants g JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
          [intent?.id],
        );
        expect(row).toEqual({ state: 'revoked', ended_by: 'mint_failed', revocation: 'clean' });
      },
      { timeout: 60_000, interval: 100 },
    );
    expect(
      await house.onTarget('SELECT 1 FROM pg_roles WHERE rolname = $1', [`mfy_${intent?.id.replaceAll('-', '')}`]),
    ).toEqual([]);
    await client.complete(task.id, { wait: 30 });
  });

  test('a target that hangs delays only itself: the obligation stays, and ends when the target is back', async () => {
    const { taskId, grants } = await mintMany(house, 3);
    proxy.blackHole();
    const cancelled = await house.client().cancel(taskId);
    expect(cancelled.revocations.map(({ state }) => state)).not.toContain('contained');
    const { task } = await house.client().openTask(await house.sign());
    await expect(house.client().issue(task.id, { entitlement: 'ledger-db/read-invoices' })).rejects.toMatchObject({
      status: 503,
      code: 'target_unavailable',
    });
    await vi.waitFor(
      async () => expect((await stateOf(house, grants)).rows.every((row) => row.attempts > 0)).toBe(true),
      { timeout: 60_000, interval: 100 },
    );
    proxy.heal();
    proxy.cut();
    await untilGone(house, grants);
    await house.client().cancel(task.id, { wait: 30 });
  });

  test.runIf(backend === 'redis')('a flushed Redis loses no revocation', async () => {
    const { grants } = await mintMany(house, 8, 3);
    await redis?.flush();
    const late = await untilGone(house, grants);
    expect(late).toBeLessThan(30);
  });

  test.runIf(backend === 'redis')('with Redis gone an end is answered and carried out all the same', async () => {
    const { taskId, grants } = await mintMany(house, 3);
    await redis?.kill();
    const answer = await house.client().complete(taskId, { wait: 20 });
    expect(answer.revocations.every(({ state }) => state === 'contained' || state === 'clean')).toBe(true);
    await untilGone(house, grants);
    await redis?.start();
  });
});
