import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { ProviderError } from '../../src/provider.ts';
import { RevocationEngine } from '../../src/revocation/engine.ts';
import { TargetWorker } from '../../src/revocation/target-worker.ts';
import { Database } from '../../src/store/database.ts';
import { type Born, type EngineHouse, type EngineTarget, startEngineHouse, only } from '../support/engine.ts';
import { refuses } from '../support/synthetic/faults.ts';

let house: EngineHouse;
beforeAll(async () => {
  house = await startEngineHouse();
});
afterAll(async () => {
  await house?.stop();
});

let target: EngineTarget;
let worker: TargetWorker;
beforeEach(() => {
  target = house.target();
  worker = new TargetWorker(house.deps, target.name);
  for (const list of [house.observed, house.logs, house.changed, house.unclaimed]) list.splice(0);
});
afterEach(async () => {
  target.synthetic.faults.clear();
  await worker.stop();
});

const quickly = { timeout: 60_000, interval: 5 };

async function ended(count: number): Promise<readonly Born[]> {
  const born = await target.bear(count);
  await target.end(born);
  return born;
}

/** Their deadline has come, and nobody has noticed. */
async function overdue(count: number): Promise<readonly Born[]> {
  const born = await target.bear(count);
  await house.onStore(
    `UPDATE mayfly.revocations SET due_at = clock_timestamp() - interval '10 milliseconds' WHERE grant_id = ANY($1)`,
    [born.map(({ id }) => id)],
  );
  return born;
}

async function standing(state: string): Promise<number> {
  const [row] = await house.onStore<{ n: number }>(
    'SELECT count(*)::int AS n FROM mayfly.revocations WHERE target = $1 AND state = $2',
    [target.name, state],
  );
  return row?.n ?? 0;
}

async function until(state: string, n: number): Promise<void> {
  await vi.waitFor(async () => expect(await standing(state)).toBe(n), quickly);
}

function fences(): number[] {
  return target.synthetic.calls.filter(({ operation }) => operation === 'fence').map(({ handles }) => handles.length);
}

describe('a worker that is woken', () => {
  test('ends what is due, cleans it, and asks for nothing when there is nothing', async () => {
    worker.wake(false);
    const born = await ended(2);
    worker.wake(false);
    await until('clean', 2);
    for (const { handle } of born) expect(target.synthetic.system.find(handle)).toBeUndefined();
    expect(fences()).toEqual([2]);
    expect(house.logs).toEqual([]);
    expect(house.observed.filter(([name]) => name === 'breaker')).toEqual([]);
  });

  test('ends what has reached its deadline by itself, and says so', async () => {
    const born = await overdue(2);
    worker.wake(true);
    await until('clean', 2);
    for (const one of born) {
      expect(await house.standing(one)).toMatchObject({ state: 'revoked', ended_by: 'expired' });
      expect((await house.told(one))[0]).toMatchObject({
        ...{ type: 'grant.ended', cause: 'expired', correlation_id: 'worker-1' },
        payload: { target: target.name, by: 'deadline' },
      });
    }
    expect(house.changed).toContain(only(born).taskId);
  });

  test('looks at no deadline when it is told that none has come', async () => {
    await overdue(1);
    await ended(1);
    worker.wake(false);
    await until('clean', 1);
    expect(await standing('scheduled')).toBe(1);
    // And once it was told, not again.
    worker.wake(true);
    await until('clean', 2);
    await overdue(1);
    await ended(1);
    worker.wake(false);
    await until('clean', 3);
    expect(await standing('scheduled')).toBe(1);
  });

  test('takes fifty at a time until nothing is left', async () => {
    await ended(120);
    worker.wake(false);
    await until('clean', 120);
    expect(fences().toSorted((a, b) => b - a)).toEqual([50, 50, 20]);
  });

  test('goes on with deadlines behind the first two hundred', async () => {
    await overdue(201);
    worker.wake(true);
    await until('clean', 201);
    expect(await standing('scheduled')).toBe(0);
  });

  test('waits a moment from one claim to the next, so that what falls due meanwhile goes together', async () => {
    await ended(1);
    worker.wake(false);
    await vi.waitFor(() => expect(fences()).toEqual([1]), quickly);
    const claimed = performance.now();
    worker.wake(false);
    await ended(2);
    worker.wake(false);
    await until('clean', 3);
    expect(performance.now() - claimed).toBeLessThan(30_000);
    expect(fences().reduce((sum, n) => sum + n, 0)).toBe(3);
  });

  test('has so many batches under way at once, and no more', async () => {
    const free: (() => void)[] = [];
    target.synthetic.faults.set('fence', {
      answer: async ({ refs, honest }) => {
        await new Promise<void>((resolve) => free.push(resolve));
        return await honest(refs);
      },
    });
    for (let lanes = 1; lanes <= 4; lanes++) {
      await ended(1);
      worker.wake(false);
      await vi.waitFor(() => expect(fences()).toHaveLength(lanes), quickly);
    }
    await ended(1);
    worker.wake(false);
    // Longer than the pace from one claim to the next.
    const later = performance.now() + 60;
    await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(later), quickly);
    expect(await standing('due')).toBe(1);
    expect(fences()).toHaveLength(4);
    free.splice(0, 1).forEach((go) => go());
    await vi.waitFor(() => expect(fences()).toHaveLength(5), quickly);
    free.splice(0).forEach((go) => go());
    await until('clean', 5);
  });

  test('asks once for all who wake it within a moment', async () => {
    const asked = vi.spyOn(house.db, 'query');
    for (let n = 0; n < 3; n++) worker.wake(false);
    expect(asked).toHaveBeenCalledTimes(1);
    await ended(1);
    worker.wake(false);
    await until('clean', 1);
  });

  test('begins another batch beside a full one that is in hand', async () => {
    await ended(60);
    const held = target.synthetic.holds.hold('fence.sent');
    worker.wake(false);
    await held.reached;
    await vi.waitFor(() => expect(fences()).toEqual([50, 10]), quickly);
    held.release();
    await until('clean', 60);
  });

  test('has fewer batches under way once the target says nothing to some', async () => {
    const calls: { readonly silence: () => void; readonly serve: () => void }[] = [];
    target.synthetic.faults.set('fence', {
      answer: async ({ refs, honest }) => {
        const isSilent = await new Promise<boolean>((resolve) =>
          calls.push({ silence: () => resolve(true), serve: () => resolve(false) }),
        );
        const answers = (await honest(refs)) as readonly unknown[];
        const error = new ProviderError('retryable', 'away', { wholeTarget: true });
        return isSilent ? [{ ok: false, error }, ...answers.slice(1)] : answers;
      },
    });
    await ended(350);
    worker.wake(false);
    // As a storm begins.
    await vi.waitFor(() => expect(calls).toHaveLength(2), quickly);
    calls[0]?.silence();
    await vi.waitFor(() => expect(calls).toHaveLength(3), quickly);
    calls[1]?.silence();
    await until('contained', 98);
    // Of the two lanes one goes on.
    expect(calls).toHaveLength(3);
    let served = 2;
    await vi.waitFor(async () => {
      while (served < calls.length) calls[served++]?.serve();
      // What it was silent to waits for its next try.
      worker.wake(false);
      expect(await standing('clean')).toBe(350);
    }, quickly);
  });

  test('ends once more what was contained, not cleaned, and lives again', async () => {
    target.synthetic.faults.set('reap', refuses('retryable', 'away'));
    const born = await ended(1);
    worker.wake(false);
    await vi.waitFor(
      async () => expect((await house.told(only(born))).at(-1)?.type).toBe('revocation.attempted'),
      quickly,
    );
    target.synthetic.faults.clear();
    target.synthetic.system.forgetCut(only(born).handle);
    await house.onStore('UPDATE mayfly.revocations SET try_at = clock_timestamp() WHERE grant_id = $1', [
      only(born).id,
    ]);
    worker.wake(false);
    await until('clean', 1);
    expect((await house.told(only(born))).map(({ type }) => type)).toContain('revocation.returned');
    expect(target.synthetic.system.find(only(born).handle)).toBeUndefined();
  });
});

describe('a worker that is stopped', () => {
  test('lets what it has in hand end, and takes nothing more', async () => {
    await ended(1);
    const held = target.synthetic.holds.hold('fence.sent');
    worker.wake(false);
    await held.reached;
    await ended(1);
    const stopping = worker.stop();
    worker.wake(false);
    held.release();
    await stopping;
    expect(await standing('clean')).toBe(1);
    expect(await standing('due')).toBe(1);
  });

  test('lets what it cleans end', async () => {
    await ended(1);
    const held = target.synthetic.holds.hold('reap.sent');
    worker.wake(false);
    await held.reached;
    const stopping = worker.stop();
    held.release();
    await stopping;
    expect(await standing('clean')).toBe(1);
  });

  test('is woken by nothing that it had set itself', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      worker.wake(false);
      worker.wake(false);
      expect(vi.getTimerCount()).toBeGreaterThan(0);
      const stopping = worker.stop();
      vi.useRealTimers();
      await stopping;
    } finally {
      vi.useRealTimers();
    }
    await ended(1);
    worker.wake(true);
    expect(await standing('due')).toBe(1);
  });
});

test('a worker whose store does not answer says so, and claims once it does', async () => {
  const away = new Database({ url: new Secret('postgres://x@127.0.0.1:1/x'), connections: 1, onError: () => {} });
  const lonely = new TargetWorker({ ...house.deps, db: away }, target.name);
  lonely.wake(false);
  await vi.waitFor(() => expect(house.unclaimed).toEqual([target.name]), quickly);
  expect(house.logs).toMatchObject([{ event: { target: target.name, error: { code: 'store_unavailable' } } }]);
  lonely.wake(true);
  await vi.waitFor(() => expect(house.unclaimed).toHaveLength(2), quickly);
  await lonely.stop();
  await away.close();
});

describe('a target that says nothing', () => {
  /** The states that were told of, each once where it was told again. */
  const breakers = () =>
    house.observed
      .filter(([name]) => name === 'breaker')
      .map(([, , state]) => state)
      .filter((state, index, all) => state !== all[index - 1]);

  /** Three batches in a row that it said nothing to. */
  async function open(): Promise<void> {
    target.synthetic.faults.set('fence', refuses('retryable', 'away'));
    for (let batch = 1; batch <= 3; batch++) {
      await ended(1);
      worker.wake(false);
      await vi.waitFor(() => expect(house.logs.filter(({ event }) => 'claim' in event)).toHaveLength(batch), quickly);
    }
    await vi.waitFor(() => expect(breakers()).toContain('open'), quickly);
  }

  /** Nothing is tried by its own time. */
  const putOff = () =>
    house.onStore(`UPDATE mayfly.revocations SET try_at = clock_timestamp() + interval '1 hour' WHERE target = $1`, [
      target.name,
    ]);

  test('is left alone, probed with one, and all is ended once it is back, whatever its next try was', async () => {
    await open();
    const fenced = fences().length;
    expect(house.logs.at(-1)).toEqual({
      ...{ event: { target: target.name, breaker: 'open' }, message: 'the breaker of a target is open' },
    });
    await ended(3);
    await putOff();
    // The probe is sent by itself, though nobody wakes the worker and nothing is due: one, whatever its next try was.
    await vi.waitFor(() => expect(breakers().slice(0, 3)).toEqual(['open', 'probing', 'open']), quickly);
    expect(fences().slice(fenced)).toEqual([1]);
    target.synthetic.faults.clear();
    await putOff();
    await until('clean', 6);
    expect(breakers().slice(0, 3)).toEqual(['open', 'probing', 'open']);
    expect(breakers()).toContain('closed');
    expect(breakers().at(-1)).toBe('closed');
    const events = await house.told(target.name);
    expect(events.map(({ type, payload }) => [type, payload])).toEqual([
      ['target.breaker', { target: target.name, state: 'open' }],
      ['target.breaker', { target: target.name, state: 'closed' }],
    ]);
    // What closed it is news, a probe that failed was none.
    expect(house.logs.filter(({ event }) => 'breaker' in event)).toHaveLength(2);
  });

  test('still has its deadlines noticed', async () => {
    await open();
    await overdue(2);
    await putOff();
    worker.wake(true);
    await vi.waitFor(async () => expect(await standing('scheduled')).toBe(0), quickly);
    target.synthetic.faults.clear();
    await until('clean', 5);
  });

  test('is probed for nothing where nothing is due, and goes on being left alone', async () => {
    await open();
    await house.onStore(
      `UPDATE mayfly.revocations SET state = 'written_off', written_off_at = clock_timestamp(), written_off_by = 'a', written_off_reason = 'b'
       WHERE target = $1`,
      [target.name],
    );
    worker.wake(false);
    await vi.waitFor(() => expect(breakers().slice(0, 3)).toEqual(['open', 'probing', 'open']), quickly);
    target.synthetic.faults.clear();
    await ended(1);
    worker.wake(false);
    await until('clean', 1);
  });
});

describe('an engine', () => {
  interface Set {
    readonly in: [string, number][];
    readonly standIn: string[];
    readonly watch: string[];
    closed: number;
  }

  function start(expireTasks: () => Promise<number> = async () => 0) {
    const set: Set = { in: [], standIn: [], watch: [], closed: 0 };
    const clock = {
      in: (name: string, millis: number) => void set.in.push([name, millis]),
      standIn: (name: string) => void set.standIn.push(name),
      watch: (name: string) => void set.watch.push(name),
      close: async () => void (set.closed += 1),
    };
    const engine = new RevocationEngine({
      ...{ deps: house.deps, clock, sweepSeconds: 60, overdueSeconds: 60, expireTasks },
      lapseApprovals: async () => 0,
    });
    return { engine, set };
  }

  test('begins at once with what is due now, and sets an alarm for another process', async () => {
    const { engine, set } = start();
    await ended(1);
    await overdue(1);
    engine.now(target.name);
    await until('clean', 1);
    expect(set.standIn).toEqual([target.name]);
    expect(await standing('scheduled')).toBe(1);
    engine.wake(target.name);
    await until('clean', 2);
    engine.watch(['a', 'b']);
    engine.in('a', 70);
    expect(set).toMatchObject({ watch: ['a', 'b'], in: [['a', 70]] });
    await engine.stop();
    expect(set.closed).toBe(1);
  });

  test('sweeps once it is started, and tells how long ago', async () => {
    const born = await target.bear(1, { seconds: 30 });
    await ended(1);
    const { engine, set } = start();
    expect(engine.sweepAge).toBe(Number.POSITIVE_INFINITY);
    engine.start();
    await vi.waitFor(() => expect(engine.sweepAge).toBeLessThan(5), quickly);
    expect(engine.sweepAge).toBeGreaterThanOrEqual(0);
    await until('clean', 1);
    expect(set.in.filter(([name]) => name === target.name)).toHaveLength(1);
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'scheduled' });
    await engine.stop();
  });

  test('takes nothing more once it is stopped', async () => {
    const { engine, set } = start();
    await ended(1);
    const held = target.synthetic.holds.hold('fence.sent');
    engine.wake(target.name);
    await held.reached;
    const stopping = engine.stop();
    await ended(1);
    engine.wake(target.name);
    expect(set.closed).toBe(0);
    held.release();
    await stopping;
    expect(await standing('clean')).toBe(1);
    expect(await standing('due')).toBe(1);
    expect(set.closed).toBe(1);
  });
});
