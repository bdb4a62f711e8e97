import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProviderError, type Session } from '../../src/provider.ts';
import { noticeFailover } from '../../src/revocation/failover.ts';
import { Stranger } from '../../src/revocation/ownership.ts';
import { type Counts, RunLost } from '../../src/revocation/reconcile-run.ts';
import { Reconciler, type ReconcilerOptions } from '../../src/revocation/reconciler.ts';
import { type ReconcileResult, requestRuns } from '../../src/store/reconciliations.ts';
import {
  type EngineHouse,
  type EngineTarget,
  INSTALLATION,
  startEngineHouse,
  bareSession,
  only,
} from '../support/engine.ts';

let house: EngineHouse;
beforeAll(async () => {
  house = await startEngineHouse();
});
afterAll(async () => {
  await house?.stop();
});

let target: EngineTarget;
beforeEach(() => {
  target = house.target();
  for (const list of [house.observed, house.logs, house.woken, house.changed]) list.splice(0);
});

const quickly = { timeout: 60_000, interval: 5 };
const standing = { changed: 0, held: 0, uninspected: 0 };
const nothing: Counts = {
  listed: 0,
  orphans: 0,
  waiting: 0,
  lost: 0,
  returned: 0,
  drifted: 0,
  unverified: 0,
  ...standing,
};

/** The same session, which can do this too, or in another way. */
function able(more: Partial<Session>): Session {
  const { session } = target;
  return bareSession(session, { list: async (signal) => (await session.list?.(signal)) ?? [], ...more });
}

/** In the target, and unknown to the store. */
function unknownThere(
  grantId: string = randomUUID(),
  installation = INSTALLATION,
): { grantId: string; handle: string } {
  const handle = target.session.reserve(grantId);
  const endsAt = Date.now() + 300_000;
  target.synthetic.system.make({ handle, grantId, installation, endsAt }, Number.POSITIVE_INFINITY);
  return { grantId, handle };
}

let reconciler: Reconciler | undefined;
afterEach(async () => {
  await reconciler?.stop();
});

interface Row {
  readonly result: ReconcileResult | null;
  readonly seconds: number;
  readonly claimed_by: string | null;
  readonly reconciled: boolean;
}
async function row(): Promise<Row> {
  const rows = await house.onStore<Row & Record<string, unknown>>(
    `SELECT result, extract(epoch FROM next_at - clock_timestamp())::float8 AS seconds, claimed_by, reconciled_timeline IS NOT NULL AS reconciled
     FROM mayfly.reconciliations WHERE target = $1`,
    [target.name],
  );
  return only(rows);
}

async function create(options: Partial<ReconcilerOptions> & { session?: Session } = {}): Promise<Reconciler> {
  const { session, ...more } = options;
  if (session !== undefined) house.sessions.set(target.name, session);
  const definition = await house.deps.targetAt(target.name, 1, false);
  reconciler = new Reconciler({
    ...{ ownership: { prove: async () => {} }, everySeconds: 100, installation: INSTALLATION, graceSeconds: 0 },
    ...{ deps: { ...house.deps, targets: () => [definition] }, ...more },
  });
  return reconciler;
}

const runs = () => house.observed.filter(([name]) => name === 'reconciled').map(([, name, outcome]) => [name, outcome]);

/** Starts, waits for one run, and stops. */
async function once(options: Partial<ReconcilerOptions> & { session?: Session } = {}): Promise<void> {
  const before = runs().length;
  const created = await create(options);
  created.start();
  await vi.waitFor(() => expect(runs()).toHaveLength(before + 1), quickly);
  await created.stop();
}

test('compares each target at its start, and again in its time', async () => {
  await target.bear(2);
  await once();
  expect(runs()).toEqual([[target.name, 'done']]);
  const [, , , taken] = house.observed.find(([name]) => name === 'reconciled') ?? [];
  expect(taken).toBeGreaterThanOrEqual(0);
  expect(taken).toBeLessThan(60);
  const { result, seconds, claimed_by: holder, reconciled } = await row();
  expect(result).toEqual({ ...nothing, outcome: 'done', says: '', listed: 2 });
  expect([holder, reconciled]).toEqual([null, true]);
  // Of a hundred seconds nine tenths, less what has passed since.
  expect(seconds).toBeGreaterThan(30);
  expect(seconds).toBeLessThanOrEqual(90);
  // Nothing was found, and nothing is told.
  expect(await house.told(target.name)).toEqual([]);
  expect(house.logs).toEqual([]);
  expect(house.observed).toContainEqual(['unreconciled', new Set(), [target.name]]);
});

test('tells what it found', async () => {
  const { handle } = unknownThere();
  unknownThere(randomUUID(), randomUUID());
  await house.onStore('INSERT INTO mayfly.orphan_sightings VALUES ($1, $2, clock_timestamp())', [target.name, handle]);
  await once();
  expect(await house.told(target.name)).toMatchObject([
    {
      ...{ type: 'target.reconciled', correlation_id: 'worker-1' },
      payload: { ...nothing, outcome: 'done', says: '', listed: 2, orphans: 1, unverified: 1 },
    },
  ]);
  expect(house.observed).toContainEqual(['unverified', target.name, 1]);
});

test('stops when the claim that is on its way has been answered, and claims no more', async () => {
  const query = house.db.query.bind(house.db);
  const claimed = vi.fn<() => Promise<void>>();
  const spied = vi.spyOn(house.db, 'query').mockImplementation(async (statement) => {
    if (statement.name === 'claim_reconciliation') await claimed();
    return query(statement);
  });
  try {
    const created = await create();
    let answer = (): void => {};
    claimed.mockReturnValue(
      new Promise((resolve) => {
        answer = resolve;
      }),
    );
    created.start();
    await vi.waitFor(() => expect(claimed).toHaveBeenCalledTimes(1), quickly);
    const order: string[] = [];
    const stopping = created.stop().then(() => order.push('stopped'));
    await house.onStore('SELECT 1');
    order.push('answered');
    answer();
    await stopping;
    expect([order, claimed.mock.calls.length]).toEqual([['answered', 'stopped'], 1]);
  } finally {
    spied.mockRestore();
  }
});

test('looks sooner where something waits for its grace, and does not call that reconciled', async () => {
  unknownThere();
  await once({ graceSeconds: 10 });
  const { seconds, reconciled, result } = await row();
  expect(result).toMatchObject({ outcome: 'done', waiting: 1 });
  expect(reconciled).toBe(false);
  expect(seconds).toBeGreaterThan(0);
  expect(seconds).toBeLessThanOrEqual(9.9);
});

test('that could not see whose the target is tries again sooner, and tells it once', async () => {
  const prove = async () => await Promise.reject(new ProviderError('retryable', 'away'));
  await once({ ownership: { prove } });
  await once({ ownership: { prove } });
  const { result, seconds, reconciled } = await row();
  expect(result).toEqual({ ...nothing, outcome: 'failed', says: 'away' });
  expect(reconciled).toBe(false);
  expect(seconds).toBeGreaterThan(0);
  expect(seconds).toBeLessThanOrEqual(27);
  expect(await house.told(target.name)).toMatchObject([{ payload: { outcome: 'failed', says: 'away' } }]);
  expect(house.logs[0]).toEqual({
    event: { target: target.name, ...nothing, outcome: 'failed', says: 'away' },
    message: 'a target could not be reconciled',
  });
  expect(target.synthetic.count('list')).toBe(0);
  // Another reason is news, and so is its return.
  await once({ ownership: { prove: async () => await Promise.reject(new ProviderError('denied', 'no')) } });
  await once();
  expect((await house.told(target.name)).map(({ payload }) => payload['says'])).toEqual(['away', 'no', '']);
  expect(runs().map(([, outcome]) => outcome)).toEqual(['failed', 'failed', 'failed', 'done']);
});

test('that is asked more often than that does not wait longer', async () => {
  await once({ everySeconds: 5, ownership: { prove: async () => await Promise.reject(new Error('no')) } });
  expect((await row()).seconds).toBeLessThanOrEqual(4.5);
});

test('reads nothing of what another holds', async () => {
  await once({ ownership: { prove: async () => await Promise.reject(new Stranger('another')) } });
  const { result, reconciled, seconds } = await row();
  expect(result).toMatchObject({ outcome: 'stranger', says: 'another' });
  expect(reconciled).toBe(false);
  expect(seconds).toBeGreaterThan(30);
  expect(target.synthetic.count('list')).toBe(0);
});

test('calls a target that can not be listed what it is', async () => {
  const session = able({});
  Reflect.deleteProperty(session, 'list');
  await once({ session });
  const { result, reconciled } = await row();
  expect(result).toMatchObject({
    outcome: 'unlisted',
    says: 'the target can not be listed: what is in it and unknown here is not seen',
  });
  expect(reconciled).toBe(true);
});

test('that could not read says so', async () => {
  await once({ session: able({ list: async () => await Promise.reject(new ProviderError('denied', 'May not.')) }) });
  expect((await row()).result).toMatchObject({ outcome: 'failed', says: 'May not.' });
});

test('leaves to another what it can not open', async () => {
  const deps = { ...house.deps, targets: () => [only([...definitions])] };
  const definitions = [await house.deps.targetAt('nowhere', 1, false)];
  const created = await create({ deps });
  created.start();
  await vi.waitFor(() => expect(house.logs.length).toBeGreaterThan(0), quickly);
  await created.stop();
  expect(house.logs[0]).toMatchObject({
    event: { target: 'nowhere', error: { message: 'no target nowhere' } },
    message: 'a target could not be reconciled; another run takes over',
  });
  expect(runs()).toEqual([]);
});

test('goes on where nothing can be asked, and knows new targets when they come', async () => {
  const definition = await house.deps.targetAt(target.name, 1, false);
  let ticks = 0;
  const targets = () => {
    ticks += 1;
    if (ticks === 1) throw new Error('no catalog');
    return [definition];
  };
  const created = await create({ deps: { ...house.deps, targets } });
  created.start();
  await vi.waitFor(() => expect(runs()).toEqual([[target.name, 'done']]), quickly);
  expect(house.logs).toMatchObject([
    { event: { error: { message: 'no catalog' } }, message: 'no target can be reconciled now' },
  ]);
  // It is asked for once.
  await house.onStore(`UPDATE mayfly.reconciliations SET asked_at = NULL WHERE target = $1`, [target.name]);
  const now = ticks;
  await vi.waitFor(() => expect(ticks).toBeGreaterThan(now), quickly);
  await created.stop();
  expect(
    await house.onStore('SELECT 1 FROM mayfly.reconciliations WHERE target = $1 AND asked_at IS NOT NULL', [
      target.name,
    ]),
  ).toEqual([]);
  const stopped = ticks;
  await house.onStore('SELECT pg_sleep(1.1)');
  expect(ticks).toBe(stopped);
});

describe('while a target is slow', () => {
  /** Holds its list until it is released, or called off. */
  function slow(): { session: Session; reached: Promise<void>; release: () => void } {
    const held = target.synthetic.holds.hold('list.sent');
    return { session: target.session, reached: held.reached, release: () => held.release() };
  }

  test('keeps its claim, and gives way when that is lost', async () => {
    const held = slow();
    const created = await create({ leaseSeconds: 3 });
    created.start();
    await held.reached;
    const until = async () =>
      only(
        await house.onStore<{ until: Date }>(
          'SELECT claimed_until AS until FROM mayfly.reconciliations WHERE target = $1',
          [target.name],
        ),
      ).until.getTime();
    const first = await until();
    await vi.waitFor(async () => expect(await until()).toBeGreaterThan(first), quickly);
    await house.onStore('UPDATE mayfly.reconciliations SET claim_number = claim_number + 1 WHERE target = $1', [
      target.name,
    ]);
    await vi.waitFor(() => expect(house.logs).toHaveLength(1), quickly);
    expect(house.logs[0]).toMatchObject({ event: { target: target.name, error: new RunLost() } });
    held.release();
    await created.stop();
    expect(runs()).toEqual([]);
  });

  test('begins no second run there, and ends the one it has before it is stopped', async () => {
    const held = slow();
    const definition = await house.deps.targetAt(target.name, 1, false);
    let looks = 0;
    const targets = () => {
      looks += 1;
      return [definition];
    };
    const created = await create({ deps: { ...house.deps, targets } });
    created.start();
    await held.reached;
    const lists = target.synthetic.count('list');
    await requestRuns(house.db, [target.name]);
    // When it looks a second time from now, all of the first is over.
    const asked = looks;
    await vi.waitFor(() => expect(looks).toBeGreaterThan(asked + 1), quickly);
    expect(target.synthetic.count('list')).toBe(lists);
    let ended = false;
    const stopping = created.stop().then(() => (ended = true));
    expect(ended).toBe(false);
    await stopping;
    held.release();
    // It is another's at once.
    const { result, seconds } = await row();
    expect(result).toMatchObject({ outcome: 'failed' });
    expect(seconds).toBeLessThanOrEqual(0);
  });
});

describe('after a failover of the store', () => {
  const forget = () => house.onStore('UPDATE mayfly.timeline SET timeline = 99, changed_at = NULL');
  afterEach(async () => {
    await house.onStore('UPDATE mayfly.timeline SET timeline = mayfly.current_timeline(), changed_at = NULL');
  });

  test('it is noticed once, loudly, and says on which targets nothing is issued', async () => {
    await house.onStore(`DELETE FROM mayfly.audit_events WHERE type = 'store.failed_over'`).catch(() => []);
    await forget();
    expect(await noticeFailover(house.deps, [target.name])).toEqual(new Set([target.name]));
    expect(house.observed).toEqual([['unreconciled', new Set([target.name]), [target.name]]]);
    expect(house.logs).toEqual([
      {
        event: { before: 99, after: 1, says: 'it is on another timeline', alert: 'failed_over' },
        message: expect.stringContaining('may have forgotten its last moments'),
      },
    ]);
    expect((await house.told('store')).at(-1)).toMatchObject({
      ...{ type: 'store.failed_over', payload: { timeline_before: 99, timeline: 1 } },
    });
    const told = (await house.told('store')).length;
    expect(await noticeFailover(house.deps, [target.name])).toEqual(new Set([target.name]));
    expect(await house.told('store')).toHaveLength(told);
    expect(house.logs).toHaveLength(1);
  });

  test('two that notice it together tell it once', async () => {
    await forget();
    const told = (await house.told('store')).length;
    const both = await Promise.all([
      noticeFailover(house.deps, [target.name]),
      noticeFailover(house.deps, [target.name]),
    ]);
    expect(both).toEqual([new Set([target.name]), new Set([target.name])]);
    expect(await house.told('store')).toHaveLength(told + 1);
    expect(house.logs).toHaveLength(1);
  });

  test('a target that could not be read is tried again in a hurry, and reconciled is what was', async () => {
    await forget();
    const prove = async () => await Promise.reject(new ProviderError('retryable', 'away'));
    await once({ ownership: { prove } });
    expect((await row()).seconds).toBeLessThanOrEqual(1.8);
    expect((await row()).reconciled).toBe(false);
    await once({ ownership: { prove: async () => await Promise.reject(new Stranger('another')) } });
    expect((await row()).seconds).toBeLessThanOrEqual(1.8);
    await once();
    expect((await row()).seconds).toBeGreaterThan(30);
    expect(await noticeFailover(house.deps, [target.name])).toEqual(new Set());
  });
});
