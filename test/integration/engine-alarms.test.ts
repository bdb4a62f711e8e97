import { randomUUID } from 'node:crypto';
import { createPostgresBackend, Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { type AlarmBackend, AlarmClock, HORIZON_SECONDS } from '../../src/revocation/alarm-clock.ts';
import { PostgresBell } from '../../src/revocation/postgres-bell.ts';
import { type EngineHouse, startEngineHouse } from '../support/engine.ts';
import { redisAvailable, type RedisServer, startRedis } from '../support/redis-server.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

const kinds = ['postgres', ...(redisAvailable() ? ['redis' as const] : [])] as const;

let house: EngineHouse;
let redis: RedisServer | undefined;
let proxy: TcpProxy;
beforeAll(async () => {
  house = await startEngineHouse();
  redis = kinds.length > 1 ? await startRedis() : undefined;
  proxy = await startTcpProxy(Number(new URL(house.storeUrl.reveal()).port));
});
afterAll(async () => {
  await proxy?.close();
  await redis?.stop();
  await house?.stop();
});

interface Rung {
  readonly clock: AlarmClock;
  /** Targets that it rang for, and how late the alarms of the queue were. */
  readonly rings: string[];
  readonly rang: [string, number][];
  readonly logs: (readonly [Readonly<Record<string, unknown>>, string])[];
  /** Ringing fails from now on. */
  fails: boolean;
}

let clocks: Rung[];
let target: string;
beforeEach(() => {
  clocks = [];
  target = `target-${randomUUID()}`;
});
afterEach(async () => {
  await Promise.all(clocks.map(({ clock }) => clock.close()));
});

async function connectionsOfRedis(): Promise<number> {
  const looking = new Redis(redis?.url ?? '');
  try {
    const list = String(await looking.call('CLIENT', 'LIST', 'TYPE', 'normal'));
    return list.split('\n').filter((line) => line.includes('id=')).length - 1;
  } finally {
    looking.disconnect();
  }
}

const quickly = { timeout: 60_000, interval: 5 };

function backendOf(kind: AlarmBackend['kind']): AlarmBackend {
  return { kind, url: kind === 'redis' ? new Secret(redis?.url ?? '') : house.storeUrl };
}

/** One process's clock. */
function start(backend: AlarmBackend): Rung {
  const rings: string[] = [];
  const rang: [string, number][] = [];
  const logs: Rung['logs'] = [];
  const one: Pick<Rung, 'fails'> = { fails: false };
  const clock = new AlarmClock({
    backend,
    ring: (name) => {
      rings.push(name);
      if (one.fails) throw new Error('nobody hears it');
    },
    rang: (kind, seconds) => rang.push([kind, seconds]),
    log: (event, message) => logs.push([event, message]),
  });
  const made = Object.assign(one, { clock, rings, rang, logs });
  clocks.push(made);
  return made;
}

type Looked = Pick<Queue, 'add' | 'getJobCounts'>;

/** The target's queue as it stands, seen by somebody who rings for nothing. */
async function withQueue<T>(kind: AlarmBackend['kind'], look: (queue: Looked) => Promise<T>): Promise<T> {
  const { url } = backendOf(kind);
  const name = `mayfly-${target}`;
  const redisConnection = kind === 'redis' ? new Redis(url.reveal(), { maxRetriesPerRequest: null }) : undefined;
  const queue =
    redisConnection === undefined
      ? new Queue(name, { connection: { connectionString: url.reveal(), max: 1 } }, createPostgresBackend)
      : new Queue(name, { connection: redisConnection });
  try {
    return await look(queue);
  } finally {
    await queue.close();
    redisConnection?.disconnect();
  }
}

const countJobs = async (queue: Looked) =>
  Object.values(await queue.getJobCounts()).reduce((sum, count) => sum + count, 0);

describe.each(kinds)('with its queue in %s', (kind) => {
  test('an alarm outlives whoever set it: another process that watches the target is woken', async () => {
    const [mine, theirs] = [start(backendOf(kind)), start(backendOf(kind))];
    theirs.clock.watch(target);
    // Long enough for this process to look and to go.
    mine.clock.standIn(target, 2_000);
    await withQueue(
      kind,
      async (queue) => await vi.waitFor(async () => expect(await countJobs(queue)).toBe(1), quickly),
    );
    await mine.clock.close();
    await vi.waitFor(() => expect(theirs.rings).toEqual([target]), quickly);
    expect(mine.rings).toEqual([]);
  });

  test('nothing is left of an alarm that rang, also where ringing failed', async () => {
    const mine = start(backendOf(kind));
    mine.clock.standIn(target);
    await vi.waitFor(() => expect(mine.rang).toHaveLength(1), quickly);
    mine.fails = true;
    mine.clock.standIn(target);
    await vi.waitFor(() => expect(mine.rings).toHaveLength(2), quickly);
    await withQueue(
      kind,
      async (queue) => await vi.waitFor(async () => expect(await countJobs(queue)).toBe(0), quickly),
    );
  });

  test('a job of another name rings, and is told as late for nothing', async () => {
    const mine = start(backendOf(kind));
    mine.clock.watch(target);
    await withQueue(kind, async (queue) => {
      for (const jobId of ['x-at-7', 'at-7-x']) await queue.add('due', {}, { jobId, removeOnComplete: true });
    });
    await vi.waitFor(() => expect(mine.rings).toHaveLength(2), quickly);
    expect(mine.rang).toEqual([]);
  });

  test('a closed clock leaves no connection behind', async () => {
    const count = async () =>
      kind === 'redis'
        ? await connectionsOfRedis()
        : (
            await house.onStore<{ n: number }>(
              `SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%bullmq%' AND pid <> pg_backend_pid()`,
            )
          )[0]?.n;
    const mine = start(backendOf(kind));
    mine.clock.standIn(target);
    await vi.waitFor(() => expect(mine.rang).toHaveLength(1), quickly);
    await vi.waitFor(async () => expect(await count()).toBeGreaterThan(0), quickly);
    await Promise.all(clocks.map(({ clock }) => clock.close()));
    await vi.waitFor(async () => expect(await count()).toBe(0), quickly);
  });

  test('an alarm reaches another process soon after its moment, once for all that share it', async () => {
    const [mine, theirs] = [start(backendOf(kind)), start(backendOf(kind))];
    theirs.clock.watch(target);
    // Those that fall into one quarter of a second round up to one alarm.
    const moment = Math.ceil(Date.now() / 250) * 250 + 130;
    for (const millis of [0, 40, 80]) mine.clock.standIn(target, moment + millis - Date.now());
    await vi.waitFor(() => expect(theirs.rings.length + mine.rings.length).toBeGreaterThan(0), quickly);
    const [[told, lag] = ['', -1]] = [...theirs.rang, ...mine.rang];
    expect(told).toBe(kind);
    expect(lag).toBeGreaterThanOrEqual(-0.02);
    expect(lag).toBeLessThan(60);
    expect(Date.now()).toBeGreaterThan(moment + 200);
    expect(new Set([...theirs.rings, ...mine.rings])).toEqual(new Set([target]));
    expect([...theirs.rings, ...mine.rings]).toHaveLength(1);
    expect([...theirs.logs, ...mine.logs]).toEqual([]);
  });

  test('whoever set it rings by itself at the moment, and both ring for a target that both watch', async () => {
    const mine = start(backendOf(kind));
    mine.clock.watch(target);
    mine.clock.watch(target);
    const began = Date.now();
    mine.clock.in(target, 30);
    await vi.waitFor(() => expect(mine.rings).toEqual([target]), quickly);
    // A timer may come a millisecond early.
    expect(Date.now() - began).toBeGreaterThanOrEqual(28);
    expect(mine.rang).toEqual([]);
    await vi.waitFor(() => expect(mine.rings).toEqual([target, target]), quickly);
    expect(mine.rang).toHaveLength(1);
    // What rang is used up: the same moment can be set anew, and nothing is left of it.
    mine.clock.standIn(target);
    await vi.waitFor(() => expect(mine.rang).toHaveLength(2), quickly);
  });

  test('another target is not rung for', async () => {
    const [mine, theirs] = [start(backendOf(kind)), start(backendOf(kind))];
    theirs.clock.watch(`${target}-other`);
    mine.clock.standIn(target);
    await vi.waitFor(() => expect(mine.rings).toEqual([target]), quickly);
    expect(theirs.rings).toEqual([]);
  });

  test('nothing rings, is set or is watched once it is closed', async () => {
    const [mine, theirs] = [start(backendOf(kind)), start(backendOf(kind))];
    theirs.clock.watch(target);
    mine.clock.in(target, 0);
    await mine.clock.close();
    mine.clock.in(target, 0);
    mine.clock.standIn(target);
    mine.clock.watch(target);
    theirs.clock.standIn(target, 300);
    await vi.waitFor(() => expect(theirs.rings).toEqual([target]), quickly);
    expect(mine.rings).toEqual([]);
    expect(theirs.rang).toHaveLength(1);
    const before = Date.now();
    await theirs.clock.close();
    expect(Date.now() - before).toBeLessThan(1_900);
  });
});

test('what lies beyond the horizon is left to the sweeper', async () => {
  const mine = start(backendOf('postgres'));
  mine.clock.in(target, HORIZON_SECONDS * 1000 + 1);
  mine.clock.in(target, 0);
  await vi.waitFor(() => expect(mine.rang).toHaveLength(1), quickly);
  const jobs = await house.onStore<{ n: number }>(
    `SELECT count(*)::int AS n FROM information_schema.tables WHERE table_schema = 'bullmq'`,
  );
  expect(jobs[0]?.n).toBeGreaterThan(0);
  expect(mine.rings).toEqual([target, target]);
});

test.runIf(kinds.length > 1)('a queue in trouble is told of, and the clock still rings here', async () => {
  const mine = start({ kind: 'redis', url: new Secret('redis://127.0.0.1:1') });
  mine.clock.in(target, 10);
  await vi.waitFor(() => expect(mine.rings).toEqual([target]), quickly);
  // Of its own connection, and of the one that listens for the target.
  const trouble = 'the queue of alarms is in trouble; the sweeper stands in';
  await vi.waitFor(() => {
    expect(mine.logs).toContainEqual([{ error: expect.any(Error) }, trouble]);
    expect(mine.logs).toContainEqual([{ target, error: expect.any(Error) }, trouble]);
  }, quickly);
});

test('a store that can not be reached is told of with the target, and asked again', async () => {
  proxy.retarget(1);
  const url = new URL(house.storeUrl.reveal());
  const port = Number(url.port);
  url.port = String(proxy.port);
  const mine = start({ kind: 'postgres', url: new Secret(url.href) });
  mine.clock.watch(target);
  mine.clock.standIn(target);
  await vi.waitFor(() => {
    for (const message of ['the queue of alarms is in trouble', 'alarms could not be set'])
      expect(mine.logs).toContainEqual([{ target, error: expect.any(Error) }, `${message}; the sweeper stands in`]);
  }, quickly);
  proxy.retarget(port);
  await vi.waitFor(async () => {
    mine.clock.standIn(target);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(mine.rings).toContain(target);
  }, quickly);
});

test('a bell that is closed while it can not reach the store tries no more', async () => {
  proxy.retarget(1);
  const url = new URL(house.storeUrl.reveal());
  url.port = String(proxy.port);
  const failures: Error[] = [];
  const bell = new PostgresBell({
    ...{ queue: `mayfly-${target}`, url: url.href, worker: { concurrency: 1 }, ring: () => {} },
    failed: (error) => failures.push(error),
  });
  await vi.waitFor(() => expect(failures.length).toBeGreaterThan(0), quickly);
  await bell.close();
  const { connections } = proxy;
  const later = performance.now() + 1_200;
  await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(later), quickly);
  expect(proxy.connections).toBe(connections);
  expect(failures[0]).toBeInstanceOf(Error);
});
