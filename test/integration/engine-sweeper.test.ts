import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Sweeper, type SweeperOptions } from '../../src/revocation/sweeper.ts';
import { type Born, type EngineHouse, type EngineTarget, startEngineHouse, only } from '../support/engine.ts';

let house: EngineHouse;
beforeAll(async () => {
  house = await startEngineHouse();
});
afterAll(async () => {
  await house?.stop();
});

let target: EngineTarget;
let sweeper: Sweeper;
let alarms: [string, number][];
let woken: string[];
beforeEach(async () => {
  target = house.target();
  [alarms, woken] = [[], []];
  for (const list of [house.observed, house.logs, house.changed]) list.splice(0);
  // Nothing of another test is looked at.
  await house.onStore(
    `UPDATE mayfly.revocations SET due_at = 'infinity', try_at = 'infinity', claimed_until = 'infinity'`,
  );
});
afterEach(async () => {
  vi.useRealTimers();
  await sweeper.stop();
});

const quickly = { timeout: 60_000, interval: 5 };

function create(options: Partial<SweeperOptions> = {}): Sweeper {
  sweeper = new Sweeper({
    ...{ db: house.db, deps: house.deps, sweepSeconds: 60, overdueSeconds: 30, expireTasks: async () => 0 },
    lapseApprovals: async () => 0,
    wake: (name) => woken.push(name),
    alarm: (name, millis) => alarms.push([name, millis]),
    ...options,
  });
  return sweeper;
}

/** One whole sweep, and no second one. */
async function sweep(options: Partial<SweeperOptions> = {}): Promise<void> {
  create(options).start();
  await sweeper.stop();
}

const set = (born: readonly Born[], sql: string) =>
  house.onStore(`UPDATE mayfly.revocations SET ${sql} WHERE grant_id = ANY($1)`, [born.map(({ id }) => id)]);

test('a claim whose holder fell silent is due again, and the evidence says who it was', async () => {
  const [lost, held] = [await target.bear(1), await target.bear(1)];
  await target.end([...lost, ...held]);
  await target.claim('worker-9');
  await set(lost, 'claimed_until = clock_timestamp()');
  await sweep();
  expect(await house.standing(only(lost))).toMatchObject({ revocation: 'due', claimed_by: null });
  expect(await house.standing(only(held))).toMatchObject({ revocation: 'running', claimed_by: 'worker-9' });
  expect(await house.told(only(lost))).toMatchObject([
    {
      type: 'revocation.claim_lost',
      correlation_id: 'worker-1',
      payload: { target: target.name, claimed_by: 'worker-9' },
    },
  ]);
  expect(house.logs).toEqual([]);
});

test('targets with something to do are woken, and no others', async () => {
  const [scheduled, later] = [house.target(), house.target()];
  await set(await scheduled.bear(1), 'due_at = clock_timestamp()');
  await later.bear(1);
  await target.end(await target.bear(1));
  await sweep();
  expect(woken.toSorted()).toEqual([scheduled.name, target.name].toSorted());
});

describe('what is not contained in time', () => {
  test('is cried about, once', async () => {
    const [late, fresh] = [await target.bear(1), await target.bear(1)];
    await target.end([...late, ...fresh]);
    await set(late, `due_at = clock_timestamp() - interval '31 seconds'`);
    await set(fresh, `due_at = clock_timestamp() - interval '20 seconds'`);
    await sweep();
    await sweep();
    const [{ due_at: dueAt } = { due_at: new Date(0) }] = await house.onStore<{ due_at: Date }>(
      'SELECT due_at FROM mayfly.revocations WHERE grant_id = $1',
      [only(late).id],
    );
    expect(await house.told(only(late))).toMatchObject([
      { type: 'revocation.overdue', payload: { target: target.name, due_at: dueAt.toISOString() } },
    ]);
    expect(await house.told(only(fresh))).toEqual([]);
    expect(house.observed).toEqual([['overdue', target.name]]);
    expect(house.changed).toEqual([only(late).taskId]);
    expect(house.logs).toEqual([
      {
        event: { target: target.name, grant_id: only(late).id, due_at: dueAt },
        message: 'a revocation is overdue',
      },
    ]);
  });
});

describe('tasks that have outlived their time', () => {
  test('are ended, some at a time, until none is left', async () => {
    const asked: number[] = [];
    await new Promise<void>((resolve) => {
      const left = [500, 500, 499];
      create({
        expireTasks: async (limit) => {
          asked.push(limit);
          if (left.length === 1) resolve();
          return left.shift() ?? 0;
        },
      }).start();
    });
    await sweeper.stop();
    expect(asked).toEqual([500, 500, 500]);
  });

  test('are left for the next time once it is stopped', async () => {
    let asked = 0;
    create({
      expireTasks: async () => {
        asked += 1;
        return 500;
      },
    }).start();
    await sweeper.stop();
    expect(asked).toBe(1);
  });
});

describe('alarms', () => {
  const inMillis = (name: string) => alarms.filter(([of]) => of === name).map(([, millis]) => millis);

  test('are set for all that comes within a minute, the first time', async () => {
    const [soon, far] = [house.target(), house.target()];
    await set(await target.bear(2), `due_at = now() + interval '30 seconds'`);
    await set(await soon.bear(1), `due_at = clock_timestamp() + interval '25 seconds'`);
    await set(await far.bear(1), `due_at = clock_timestamp() + interval '5 minutes'`);
    await sweep();
    // One for both, which share the moment.
    expect(inMillis(target.name)).toHaveLength(1);
    expect(only(inMillis(target.name))).toBeGreaterThan(0);
    expect(only(inMillis(target.name))).toBeLessThanOrEqual(30_010);
    expect(only(inMillis(target.name)) % 10).toBe(0);
    expect(inMillis(soon.name)).toHaveLength(1);
    expect(inMillis(far.name)).toEqual([]);
  });

  test('are set for what came near since, every twenty seconds', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const [soon, near] = [house.target(), house.target()];
    await sweep();
    await set(await soon.bear(1), `due_at = clock_timestamp() + interval '10 seconds'`);
    await set(await near.bear(1), `due_at = clock_timestamp() + interval '40 seconds'`);
    const again = async () => {
      sweeper.start();
      await sweeper.stop();
      expect(sweeper.lastSweep).toBe(performance.now());
    };
    vi.advanceTimersByTime(19_900);
    await again();
    expect(alarms).toEqual([]);
    vi.advanceTimersByTime(100);
    await again();
    expect(inMillis(near.name)).toHaveLength(1);
    // For that one an alarm is set already.
    expect(inMillis(soon.name)).toEqual([]);
    vi.advanceTimersByTime(10_000);
    await again();
    expect(inMillis(near.name)).toHaveLength(1);
  });
});

describe('a step that fails', () => {
  test('keeps no other from its work, and the sweep is none until all of them went well', async () => {
    await set(await target.bear(1), `due_at = clock_timestamp() + interval '30 seconds'`);
    let fails = true;
    create({
      sweepSeconds: 0.02,
      expireTasks: async () => (fails ? await Promise.reject(new Error('no')) : 0),
    }).start();
    await vi.waitFor(() => expect(house.logs.length).toBeGreaterThan(1), quickly);
    expect(house.logs[0]).toMatchObject({ event: { error: { message: 'no' } }, message: 'a step of the sweep failed' });
    expect(alarms.filter(([name]) => name === target.name)).toHaveLength(1);
    expect(sweeper.lastSweep).toBe(Number.NEGATIVE_INFINITY);
    fails = false;
    await vi.waitFor(() => expect(sweeper.lastSweep).toBeGreaterThan(0), quickly);
    expect(sweeper.lastSweep).toBeLessThanOrEqual(performance.now());
  });
});

describe('a sweeper', () => {
  test('sweeps again after its pause, and not before', async () => {
    let sweeps = 0;
    const expireTasks = async () => {
      sweeps += 1;
      return 0;
    };
    const began = performance.now();
    create({ sweepSeconds: 0.2, expireTasks }).start();
    await vi.waitFor(() => expect(sweeps).toBe(2), quickly);
    expect(performance.now() - began).toBeGreaterThanOrEqual(190);
  });

  test('ends what it has in hand before it is stopped, and sweeps no more', async () => {
    let [sweeps, ended] = [0, false];
    let go = () => {};
    const expireTasks = () => {
      sweeps += 1;
      return new Promise<number>((resolve) => (go = () => resolve(0)));
    };
    create({ sweepSeconds: 0, expireTasks }).start();
    await vi.waitFor(() => expect(sweeps).toBe(1), quickly);
    const stopping = sweeper.stop().then(() => (ended = true));
    await house.onStore('SELECT 1');
    expect(ended).toBe(false);
    go();
    await stopping;
    expect(sweeper.lastSweep).toBeGreaterThan(0);
    await house.onStore('SELECT pg_sleep(0.03)');
    expect(sweeps).toBe(1);
  });

  test('that waits for its next time is stopped at once', async () => {
    create({ sweepSeconds: 0.05 }).start();
    await vi.waitFor(() => expect(sweeper.lastSweep).toBeGreaterThan(0), quickly);
    await sweeper.stop();
    const last = sweeper.lastSweep;
    const later = performance.now() + 120;
    await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(later), quickly);
    expect(sweeper.lastSweep).toBe(last);
  });
});
