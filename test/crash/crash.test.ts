import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import { Lanes, openLane } from './lane.ts';
import { runCase } from './run-case.ts';
import { cases, fewCases } from './table.ts';

/** Case by case on one backend by `npm run test:crash`; by itself a few on the store's own. */
const backend = process.env['MAYFLY_CRASH_BACKEND'];
const chosen = cases.filter(({ name }) => backend !== undefined || fewCases.includes(name));

describe.runIf(backend !== 'redis' || redisAvailable())(`alarms on ${backend ?? 'postgres'}`, () => {
  let server: PostgresServer;
  let redis: RedisServer | undefined;
  let lanes: Lanes;

  beforeAll(async () => {
    server = await startPostgres({ version: 18, settings: { max_connections: 500 } });
    redis = backend === 'redis' ? await startRedis() : undefined;
    // A database of Redis each: the queue bears the target's name, and all targets have the same.
    lanes = new Lanes((index) => openLane(server, redis && `${redis.url}/${index}`));
  });
  afterAll(async () => {
    await lanes?.close();
    await redis?.stop();
    await server?.stop();
  });

  test.concurrent.for(chosen)('$name', { timeout: 180_000 }, async (one, { task }) => {
    const verdict = await lanes.use(async (lane) => {
      const found = await runCase(lane, one);
      Object.assign(task.meta, { late_ms: found.lateMillis, left_behind: found.leftBehind });
      expect(found.faults).toEqual([]);
      return found;
    });
    expect(verdict.leftBehind).toBe(0);
  });
});
