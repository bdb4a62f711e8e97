import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { GrantId } from '../../src/domain/ids.ts';
import { Secret } from '../../src/domain/secret.ts';
import type { Session } from '../../src/provider.ts';
import { OutageFencer } from '../../src/revocation/outage-fencer.ts';
import { Database } from '../../src/store/database.ts';
import type { LivingGrant } from '../../src/store/living-grants.ts';
import {
  type Born,
  type EngineHouse,
  type EngineTarget,
  startEngineHouse,
  bareSession,
  only,
} from '../support/engine.ts';
import { badHandle, refuses } from '../support/synthetic/faults.ts';
import { startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts';

let house: EngineHouse;
let proxy: TcpProxy;
let db: Database;
let port: number;
beforeAll(async () => {
  house = await startEngineHouse();
  const url = new URL(house.storeUrl.reveal());
  port = Number(url.port);
  proxy = await startTcpProxy(port);
  url.port = String(proxy.port);
  db = new Database({ url: new Secret(url.href), connections: 2, onError: () => {} });
});
afterAll(async () => {
  await db?.close();
  await proxy?.close();
  await house?.stop();
});

let target: EngineTarget;
let fencer: OutageFencer;
beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] });
  target = house.target();
  fencer = new OutageFencer({ ...house.deps, db });
  for (const list of [house.observed, house.logs]) list.splice(0);
  // Nothing of another test lives on.
  await house.onStore(`UPDATE mayfly.grants SET state = 'revoking', ended_at = clock_timestamp(), ended_by = 'expired'
    WHERE state IN ('minting', 'active')`);
});
afterEach(async () => {
  await fencer.stop();
  proxy.retarget(port);
  vi.useRealTimers();
});

function goAway(): void {
  proxy.retarget(1);
  proxy.cut();
}

async function until(check: () => unknown): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await check();
      return;
    } catch (error) {
      if (tries === 400) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** So much later it has looked once more, and has done what there was to do. */
async function later(millis = 500): Promise<void> {
  if (millis > 500) vi.advanceTimersByTime(millis - (millis % 500 === 0 ? 500 : millis % 500));
  await fencer.stop();
  fencer.start();
  vi.advanceTimersByTime(500);
  await fencer.stop();
}

/** Reads what lives, as at its first look. */
async function read(): Promise<void> {
  const asked = vi.spyOn(db, 'query');
  fencer.start();
  vi.advanceTimersByTime(500);
  await until(() => expect(asked.mock.settledResults[0]?.type).toBe('fulfilled'));
  asked.mockRestore();
  await fencer.stop();
}

function refused(born: readonly Born[]): boolean[] {
  return born.map(({ handle }) => target.synthetic.system.refuses(handle));
}

function livingOf(of: EngineTarget, seconds: number): LivingGrant {
  const id = randomUUID() as GrantId;
  return {
    ...{ id, target: of.name, handle: of.session.reserve(id), facts: null, decidedRevision: 1 },
    deadline: new Date(Date.now() + seconds * 1000),
  };
}

const fenced = () => house.observed.filter(([name]) => name === 'fencedUnrecorded').map(([, name, n]) => [name, n]);

describe('while the store is away', () => {
  test('what reaches its deadline is fenced, never early, and the record follows', async () => {
    const [soon, far] = [await target.bear(2, { seconds: 20 }), await target.bear(1, { seconds: 200 })];
    await read();
    goAway();
    // Some seconds of the twenty may have passed by themselves.
    await later(14_000);
    expect(refused([...soon, ...far])).toEqual([false, false, false]);
    await later(8_000);
    expect(refused([...soon, ...far])).toEqual([true, true, false]);
    expect(fenced()).toEqual([[target.name, 2]]);
    expect(house.logs.find(({ event }) => 'alert' in event)?.event).toEqual({
      ...{ target: target.name, grants: 2, alert: 'fenced_unrecorded' },
    });
    expect(await house.told(target.name)).toEqual([]);
    await later(2_000);
    expect(target.synthetic.count('fence')).toBe(1);

    proxy.retarget(port);
    await later(2_000);
    const events = await house.told(target.name);
    expect(events).toMatchObject([{ type: 'target.fenced_unrecorded', correlation_id: 'worker-1' }]);
    const grants = only(events).payload['grants'] as { grant_id: string; at: string }[];
    expect(grants.map((grant) => grant.grant_id).sort()).toEqual(soon.map(({ id }) => `grt_${id}`).sort());
    // By the store's clock, carried on by ours.
    for (const { at } of grants) {
      expect(Date.parse(at)).toBeGreaterThan(Date.now() + 10_000);
      expect(Date.parse(at)).toBeLessThan(Date.now() + 25_000);
    }
    await later(2_000);
    expect(await house.told(target.name)).toHaveLength(1);
    // Nothing is reported as ended by that.
    expect(await house.standing(only(soon))).toMatchObject({ revocation: 'scheduled' });
  });

  test('what this process made itself is fenced too', async () => {
    await read();
    goAway();
    const grant = livingOf(target, 5);
    fencer.remember(grant);
    await later(7_000);
    expect(target.synthetic.system.refuses(grant.handle)).toBe(true);
    expect(target.synthetic.calls.at(-1)).toEqual({ operation: 'fence', handles: [grant.handle] });
  });

  test('nothing is fenced by a clock that was never heard', async () => {
    goAway();
    fencer.remember(livingOf(target, -60));
    await later(30_000);
    await until(() => expect(house.logs.length).toBeGreaterThan(0));
    expect(house.logs[0]).toMatchObject({
      event: { error: { code: 'store_unavailable' } },
      message: 'the living grants can not be read now; those known are kept in mind',
    });
    expect(target.synthetic.count('fence')).toBe(0);
  });

  test('each target is asked by itself, fifty at a time', async () => {
    const other = house.target();
    await target.bear(51, { seconds: 5 });
    await other.bear(1, { seconds: 5 });
    target.synthetic.calls.splice(0);
    other.synthetic.calls.splice(0);
    await read();
    goAway();
    await later(7_000);
    expect(target.synthetic.calls.map(({ handles }) => handles.length)).toEqual([50, 1]);
    expect(other.synthetic.calls.map(({ handles }) => handles.length)).toEqual([1]);
    expect(
      fenced()
        .map(([name, n]) => `${String(name)} ${String(n)}`)
        .sort(),
    ).toEqual([`${target.name} 50`, `${target.name} 1`, `${other.name} 1`].sort());
    proxy.retarget(port);
    await later(2_000);
    await later(500);
    expect(await house.told(target.name)).toHaveLength(1);
    expect(only(await house.told(target.name)).payload['grants']).toHaveLength(51);
    expect(await house.told(other.name)).toHaveLength(1);
  });

  test('what can not be fenced is tried again after a rest, and told of only when it was', async () => {
    const born = await target.bear(2, { seconds: 5 });
    await read();
    goAway();
    target.synthetic.faults.set('fence', badHandle(only(born).handle, { ok: false, error: new Error('no') }));
    await later(7_000);
    expect(fenced()).toEqual([[target.name, 1]]);
    target.synthetic.faults.set('fence', badHandle(only(born).handle, { ok: false, error: new Error('no') }));
    await later(500);
    await later(500);
    expect(target.synthetic.count('fence')).toBe(1);
    await later(1_500);
    expect(target.synthetic.count('fence')).toBe(2);
    expect(target.synthetic.calls.at(-1)?.handles).toEqual([only(born).handle]);
    expect(fenced()).toEqual([[target.name, 1]]);
    target.synthetic.faults.clear();
    await later(2_500);
    expect(fenced()).toEqual([
      [target.name, 1],
      [target.name, 1],
    ]);
  });

  test('a target that serves nobody keeps no other from it', async () => {
    const sick = house.target();
    await sick.bear(1, { seconds: 5 });
    const born = await target.bear(1, { seconds: 5 });
    sick.synthetic.faults.set('fence', refuses('retryable', 'dead'));
    await read();
    goAway();
    await later(7_000);
    expect(refused(born)).toEqual([true]);
    expect(house.logs.find(({ event }) => event['target'] === sick.name)).toMatchObject({
      event: { error: { message: 'dead' } },
      message: 'what has reached its deadline can not be fenced without the store now',
    });
    await later(500);
    expect(sick.synthetic.count('fence')).toBe(1);
  });

  test('a fence that is one document is not written: that takes the store', async () => {
    target = house.target('document');
    await target.bear(1, { seconds: 5 });
    await read();
    goAway();
    await later(7_000);
    expect(target.synthetic.count('fence')).toBe(0);
    expect(house.logs.at(-1)).toMatchObject({
      event: { target: target.name, error: { message: expect.stringContaining('one document') } },
    });
  });
});

describe('what can be renewed', () => {
  /** The same target, whose session renews and may know when each ends. */
  function renewable(ends?: Session['ends']): void {
    const session = bareSession(target.session, {
      renew: async (_ref, end) => ({ expiresAt: end, facts: {} }),
      ...(ends === undefined ? {} : { ends }),
    });
    house.sessions.set(target.name, session);
  }

  test('is fenced where the target itself says that it is over', async () => {
    const born = await target.bear(3, { seconds: 5 });
    const [over, renewed] = [only(born), only(born.slice(1))];
    const asked: string[][] = [];
    renewable(async (refs) => {
      asked.push(refs.map(({ handle }) => handle));
      return refs.map(({ handle }) => {
        if (handle === over.handle) return new Date(Date.now() - 1);
        return handle === renewed.handle ? new Date(Date.now() + 60_000) : null;
      });
    });
    await read();
    goAway();
    await later(7_000);
    expect(asked.map((handles) => handles.toSorted())).toEqual([born.map(({ handle }) => handle).sort()]);
    expect(refused(born)).toEqual([true, false, false]);
    expect(fenced()).toEqual([[target.name, 1]]);
  });

  test('is left alone where the target does not say', async () => {
    const born = await target.bear(1, { seconds: 5 });
    renewable();
    await read();
    goAway();
    await later(7_000);
    expect(refused(born)).toEqual([false]);
    expect(target.synthetic.count('fence')).toBe(0);
  });
});

describe('while the store answers', () => {
  test('what is due is left to the ordinary way', async () => {
    const born = await target.bear(1, { seconds: 5 });
    await read();
    await later(7_000);
    expect(refused(born)).toEqual([false]);
    // It has answered, and is not asked again at once.
    const asked = vi.spyOn(db, 'query');
    await later(500);
    expect(asked).not.toHaveBeenCalled();
    await later(2_000);
    expect(asked).toHaveBeenCalled();
  });

  test('and lets nothing be claimed on a target, that is fenced there', async () => {
    const other = house.target();
    const [born, left] = [await target.bear(1, { seconds: 5 }), await other.bear(1, { seconds: 5 })];
    await read();
    vi.advanceTimersByTime(6_000);
    fencer.unclaimed(target.name, 10_000);
    fencer.unclaimed(target.name, 1);
    await later(500);
    expect(refused(born)).toEqual([true]);
    expect(other.synthetic.system.refuses(only(left).handle)).toBe(false);
    expect(fenced()).toEqual([[target.name, 1]]);
  });

  test('is believed again when nothing could be claimed for as long as was said', async () => {
    const born = await target.bear(1, { seconds: 5 });
    await read();
    fencer.unclaimed(target.name, 10_000);
    await later(10_500);
    expect(refused(born)).toEqual([false]);
  });

  test('what it has contained is forgotten', async () => {
    const born = await target.bear(1, { seconds: 5 });
    await read();
    await target.end(born);
    await house.onStore(
      `UPDATE mayfly.revocations SET state = 'running', claim_number = 1, claimed_until = clock_timestamp() WHERE grant_id = $1`,
      [only(born).id],
    );
    await house.onStore(
      `UPDATE mayfly.revocations SET state = 'contained', contained_at = clock_timestamp() WHERE grant_id = $1`,
      [only(born).id],
    );
    await later(7_000);
    goAway();
    await later(4_000);
    expect(refused(born)).toEqual([false]);
    expect(target.synthetic.count('fence')).toBe(0);
  });
});

describe('what is kept in mind', () => {
  /** Past the next reading, and after the one that follows. */
  async function readAgain(): Promise<void> {
    vi.advanceTimersByTime(10_000);
    await read();
  }

  test('is what lives by the last reading: what has ended since is forgotten', async () => {
    const born = await target.bear(1, { seconds: 40 });
    await read();
    await target.end(born);
    await readAgain();
    goAway();
    await later(45_000);
    expect(target.synthetic.count('fence')).toBe(0);
  });

  test('is read every ten seconds', async () => {
    await read();
    const asked = vi.spyOn(db, 'query');
    fencer.start();
    vi.advanceTimersByTime(9_500);
    expect(asked).not.toHaveBeenCalled();
    vi.advanceTimersByTime(500);
    expect(asked).toHaveBeenCalledTimes(1);
    // One reading at a time.
    vi.advanceTimersByTime(20_000);
    expect(asked).toHaveBeenCalledTimes(1);
    await until(() => expect(asked.mock.settledResults[0]?.type).toBe('fulfilled'));
  });

  test('is kept beside a reading when it was made after that began', async () => {
    fencer.start();
    vi.advanceTimersByTime(500);
    const grant = livingOf(target, 5);
    vi.advanceTimersByTime(1);
    fencer.remember(grant);
    await until(() => expect(house.logs).toEqual([]));
    await fencer.stop();
    await house.onStore('SELECT pg_sleep(0.05)');
    goAway();
    await later(8_000);
    expect(target.synthetic.system.refuses(grant.handle)).toBe(true);
  });

  test('is kept when it stands behind what is read at once', async () => {
    const grant = livingOf(target, 600);
    fencer.remember(grant);
    const sooner = livingOf(target, 60);
    fencer.remember(sooner);
    const many = house.target();
    await many.bear(2_000, { seconds: 300 });
    vi.advanceTimersByTime(1);
    await read();
    goAway();
    target.synthetic.calls.splice(0);
    await later(602_000);
    expect(target.synthetic.calls.map(({ handles }) => handles)).toEqual([[grant.handle]]);
  });

  test('is ten thousand at most; what is known already is renewed all the same', async () => {
    await read();
    const grants = Array.from({ length: 10_001 }, () => livingOf(target, 5));
    for (const grant of grants) fencer.remember(grant);
    for (const grant of grants.slice(0, 2)) fencer.remember({ ...grant, deadline: new Date(Date.now() + 900_000) });
    goAway();
    await later(7_000);
    expect(fenced().reduce((sum, [, n]) => sum + Number(n), 0)).toBe(9_998);
    proxy.retarget(port);
    // Of five thousand is told, two hundred at a time.
    for (let n = 0; n < 26; n++) await later(500);
    const events = await house.told(target.name);
    expect(events.map(({ payload }) => (payload['grants'] as unknown[]).length)).toEqual(
      Array.from({ length: 25 }, () => 200),
    );
  });
});
