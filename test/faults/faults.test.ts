import { afterAll, beforeAll, expect, test } from 'vitest';
import { Lanes } from '../crash/lane.ts';
import { judge } from '../crash/verdict.ts';
import { World } from '../crash/world.ts';
import { type PostgresServer, startPostgres } from '../support/postgres-servers.ts';
import { redisAvailable } from '../support/redis-server.ts';
import { type FaultLane, openLane } from './lane.ts';
import { casesOf, fewCases } from './table.ts';

/** All cases on one backend by `npm run test:faults`; else a few, with alarms in the store. */
const asked = process.env['MAYFLY_FAULT_BACKEND'];
const backend = asked === 'redis' ? 'redis' : 'postgres';
const chosen = casesOf(backend).filter(({ name }) => asked !== undefined || fewCases.includes(name));
const there = backend === 'postgres' || redisAvailable();

let server: PostgresServer;
let lanes: Lanes<FaultLane>;

beforeAll(async () => {
  server = await startPostgres({ version: 18, settings: { max_connections: 600 } });
  lanes = new Lanes(() => openLane(server, backend === 'redis'), asked === undefined ? 2 : 4);
});
afterAll(async () => {
  await lanes?.close();
  await server?.stop();
});

test.concurrent.for(chosen.map((one) => [one.name, one] as const))(
  '%s',
  { timeout: 1_200_000 },
  async ([, { run }], { task, skip }) => {
    skip(!there, 'redis-server is not installed');
    await lanes.use(async (lane) => {
      const { house, eye, proxy } = lane;
      const { faults, leftBehind, lateMillis } = await judge(new World(house, eye, proxy), (world) => run(world, lane));
      Object.assign(task.meta, { late_ms: lateMillis, left_behind: leftBehind });
      expect(faults).toEqual([]);
    });
  },
);
