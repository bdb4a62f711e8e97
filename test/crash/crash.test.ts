import { afterAll, beforeAll, expect, test } from 'vitest';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import { type Lane, Lanes, openLane } from './lane.ts';
import { cases, fewCases } from './table.ts';
import { judge } from './verdict.ts';
import { World } from './world.ts';

/** All cases on one backend by `npm run test:crash`; else a few, with alarms in the store. */
const backend = process.env['MAYFLY_CRASH_BACKEND'];
const chosen = cases.filter(({ name }) => backend !== undefined || fewCases.includes(name));

let server: PostgresServer;
let redis: RedisServer | undefined;
let lanes: Lanes<Lane>;

beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: { max_connections: 600 } });
  redis = backend === 'redis' && redisAvailable() ? await startRedis() : undefined;
  // Each lane has a database of Redis to itself: queues bear the target's name, and all targets have the same.
  lanes = new Lanes((index) => openLane(server, redis && `${redis.url}/${index}`), backend === undefined ? 2 : 8);
});
afterAll(async () => {
  await lanes?.close();
  await redis?.stop();
  await server?.stop();
});

test.concurrent.for(chosen.map((one) => [one.name, one] as const))(
  '%s',
  { timeout: 1_200_000 },
  async ([, { run }], { task, skip }) => {
    skip(backend === 'redis' && redis === undefined, 'redis-server is not installed');
    await lanes.use(async ({ house, eye, proxy }) => {
      const { faults, leftBehind, lateMillis } = await judge(new World(house, eye, proxy), run);
      Object.assign(task.meta, { late_ms: lateMillis, left_behind: leftBehind });
      expect(faults, faults.join('; ')).toEqual([]);
    });
  },
);
