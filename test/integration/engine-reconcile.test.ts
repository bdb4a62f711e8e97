import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  type Drift,
  type Found,
  type Inspection,
  type Observation,
  ProviderError,
  type Session,
} from '../../src/provider.ts';
import { noticeFailover } from '../../src/revocation/failover.ts';
import { Stranger } from '../../src/revocation/ownership.ts';
import type { ReconcileDeps } from '../../src/revocation/reconcile-deps.ts';
import { type Counts, ReconcileRun, RunLost, type RunOptions } from '../../src/revocation/reconcile-run.ts';
import { Reconciler, type ReconcilerOptions } from '../../src/revocation/reconciler.ts';
import { claimRun, type ReconcileResult, requestRuns, type RunClaim } from '../../src/store/reconciliations.ts';
import { type Born, type EngineHouse, type EngineTarget, INSTALLATION, startEngineHouse } from '../support/engine.ts';

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

const quickly = { timeout: 5_000, interval: 5 };
const nothing: Counts = { listed: 0, orphans: 0, waiting: 0, lost: 0, returned: 0, drifted: 0, unverified: 0 };

function only<T>([one]: readonly T[]): T {
  if (one === undefined) throw new Error('there is none');
  return one;
}

async function claim(): Promise<RunClaim> {
  await requestRuns(house.db, [target.name]);
  const claimed = await claimRun(house.db, [target.name], 'worker-1', 30);
  if (claimed === undefined) throw new Error('no run is due');
  return claimed;
}

async function release(): Promise<void> {
  await house.onStore('UPDATE mayfly.reconciliations SET claimed_until = NULL WHERE target = $1', [target.name]);
}

interface RunWith extends Partial<RunOptions> {
  readonly session?: Session;
  readonly deps?: ReconcileDeps;
  readonly signal?: AbortSignal;
}

/** One comparison, whole. */
async function compare(options: RunWith = {}): Promise<Counts> {
  const { session = target.session, deps = house.deps, signal = new AbortController().signal, ...more } = options;
  const run = new ReconcileRun(
    ...([deps, await claim(), session, { installation: INSTALLATION, graceSeconds: 0, ...more }, signal] as const),
  );
  await run.run();
  await release();
  return run.counts;
}

/** The same session, which can do this too, or in another way. */
function able(more: Partial<Session>): Session {
  const { session } = target;
  return {
    guarantee: (...args) => session.guarantee(...args),
    reserve: (...args) => session.reserve(...args),
    mint: (...args) => session.mint(...args),
    fence: (...args) => session.fence(...args),
    verify: (...args) => session.verify(...args),
    reap: (...args) => session.reap(...args),
    list: async (signal) => (await session.list?.(signal)) ?? [],
    check: (...args) => session.check(...args),
    close: () => session.close(),
    ...more,
  };
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

async function typesOf(born: Born): Promise<string[]> {
  return (await house.told(born)).map(({ type }) => type);
}

describe('a target that is as the store has it', () => {
  test('is read to its end, and nothing is told', async () => {
    const born = await target.bear(3);
    expect(await compare()).toEqual({ ...nothing, listed: 3 });
    for (const one of born) expect(await typesOf(one)).toEqual([]);
    expect([house.observed, house.logs, house.woken]).toEqual([[], [], []]);
    expect(
      target.synthetic.calls.filter(({ operation }) => operation !== 'mint').map(({ operation }) => operation),
    ).toEqual(['list', 'list']);
  });

  test('is read page by page, each in order', async () => {
    const born = await target.bear(3);
    const sorted = born.map(({ handle }) => handle).sort();
    const asked: (string | undefined)[] = [];
    const list = async (signal: AbortSignal, after = ''): Promise<readonly Found[]> => {
      asked.push(after);
      const all = ((await target.session.list?.(signal)) ?? []).filter(({ handle }) => handle > after);
      return all
        .toSorted((a, b) => (a.handle < b.handle ? -1 : 1))
        .slice(0, 2)
        .toReversed();
    };
    expect(await compare({ session: able({ list }) })).toEqual({ ...nothing, listed: 3 });
    expect(asked).toEqual(['', sorted[1], sorted[2]]);
  });

  test('is nothing where it can not be listed', async () => {
    const session = able({});
    Reflect.deleteProperty(session, 'list');
    const options = { installation: INSTALLATION, graceSeconds: 0 };
    const signal = new AbortController().signal;
    expect(new ReconcileRun(house.deps, await claim(), session, options, signal).listable).toBe(false);
    await release();
    expect(new ReconcileRun(house.deps, await claim(), target.session, options, signal).listable).toBe(true);
  });
});

describe('what is unknown here', () => {
  test('is taken in and revoked once it is older than any mint in flight', async () => {
    const { grantId, handle } = unknownThere();
    await compare();
    house.woken.splice(0);
    expect(await compare()).toEqual({ ...nothing, listed: 1, orphans: 1 });
    const [row] = await house.onStore(
      `SELECT g.state, g.ended_by, g.handle, g.facts, r.state AS revocation, r.id FROM mayfly.grants g
       JOIN mayfly.revocations r ON r.grant_id = g.id WHERE g.id = $1`,
      [grantId],
    );
    expect(row).toMatchObject({
      ...{ state: 'revoking', ended_by: 'orphaned', handle, revocation: 'due' },
      facts: { incarnation: target.synthetic.system.incarnation },
    });
    const [event] = await house.told({ id: grantId, taskId: '', handle, revocationId: '' });
    expect(event).toMatchObject({
      ...{ type: 'grant.orphaned', cause: 'orphaned' },
      payload: { target: target.name, handle, revocation_id: `rev_${row?.['id']}`, says: 'orphan found' },
    });
    expect(Date.parse(String(event?.payload['first_seen_at']))).toBeLessThanOrEqual(Date.now() + 1_000);
    expect(house.observed).toEqual([['orphaned', target.name, 1]]);
    const about = { target: target.name, grant_id: grantId, handle, alert: 'orphan' };
    expect(house.logs.map((log) => log.event)).toEqual([about]);
    expect(house.woken).toEqual([target.name]);
    // From now on it is known.
    expect(await compare()).toEqual({ ...nothing, listed: 1 });
  });

  test('waits where it may be a mint in flight', async () => {
    const old = unknownThere();
    expect(await compare({ graceSeconds: 60 })).toEqual({ ...nothing, listed: 1, waiting: 1 });
    await house.onStore(
      `UPDATE mayfly.orphan_sightings SET first_seen_at = first_seen_at - interval '61 seconds' WHERE target = $1`,
      [target.name],
    );
    unknownThere();
    expect(await compare({ graceSeconds: 60 })).toEqual({ ...nothing, listed: 2, waiting: 1, orphans: 1 });
    expect(house.logs.map(({ event }) => event['handle'])).toEqual([old.handle]);
    expect(house.observed).toEqual([['orphaned', target.name, 1]]);
  });

  test('is forgotten when it was not seen again for a day', async () => {
    await house.onStore(
      `INSERT INTO mayfly.orphan_sightings (target, handle, first_seen_at) VALUES ($1, 'gone', clock_timestamp() - interval '25 hours')`,
      [target.name],
    );
    await compare();
    expect(await house.onStore('SELECT 1 FROM mayfly.orphan_sightings WHERE target = $1', [target.name])).toEqual([]);
  });

  test.each([
    ['of another installation', () => unknownThere(randomUUID(), randomUUID())],
    ['whose mark names no grant', () => unknownThere('not-a-grant')],
    ['whose mark has a grant within it', () => unknownThere(`${randomUUID()}-x`)],
    ['whose mark has a grant behind something', () => unknownThere(`x-${randomUUID()}`)],
  ])('is left alone where it is not verifiably ours: %s', async (_, make) => {
    const { handle } = make();
    expect(await compare()).toEqual({ ...nothing, listed: 1, unverified: 1 });
    expect(await house.onStore('SELECT 1 FROM mayfly.grants WHERE handle = $1', [handle])).toEqual([]);
    expect(house.woken).toEqual([]);
  });

  test('and bears only the form of our mark is left alone', async () => {
    const list = async (): Promise<readonly Found[]> => [
      { handle: 'syn-1', grantId: null, installation: INSTALLATION, facts: {} },
    ];
    expect(await compare({ session: able({ list }) })).toEqual({ ...nothing, listed: 1, unverified: 1 });
  });
});

describe('what is alive here and gone there', () => {
  const remove = (born: readonly Born[]) => {
    for (const { handle } of born) {
      target.synthetic.system.cut(handle);
      target.synthetic.system.remove(handle);
    }
  };

  test('is recorded once, loudly, and again when it was there in between', async () => {
    const born = await target.bear(1);
    remove(born);
    expect(await compare()).toEqual({ ...nothing, lost: 1 });
    const { handle } = only(born);
    expect(await house.told(only(born))).toMatchObject([
      { type: 'grant.lost', payload: { target: target.name, handle }, cause: 'none', correlation_id: 'worker-1' },
    ]);
    expect(house.observed).toEqual([['lost', target.name, 1]]);
    const about = { target: target.name, grant_id: only(born).id, handle, alert: 'lost' };
    expect(house.logs.map(({ event }) => event)).toEqual([about]);
    expect(house.woken).toEqual([]);
    expect(await house.standing(only(born))).toMatchObject({ state: 'active' });

    expect(await compare()).toEqual(nothing);
    target.synthetic.system.forgetCut(handle);
    unknownThere(only(born).id);
    expect(await compare()).toEqual({ ...nothing, listed: 1 });
    expect(await typesOf(only(born))).toEqual(['grant.lost']);
    remove(born);
    expect(await compare()).toEqual({ ...nothing, lost: 1 });
    expect(await typesOf(only(born))).toEqual(['grant.lost', 'grant.lost']);
  });

  test('is not lost where the list was short of it, or the target does not say', async () => {
    const [there, silent] = [await target.bear(1), await target.bear(1)];
    remove(silent);
    const verify: Session['verify'] = async (refs, signal) => {
      const honest = await target.session.verify(refs, signal);
      return honest.map((verdict, index) =>
        refs[index]?.handle === only(silent).handle
          ? { ok: false, error: new ProviderError('retryable', 'not now') }
          : verdict,
      );
    };
    expect(await compare({ session: able({ list: async () => [], verify }) })).toEqual(nothing);
    expect(await typesOf(only(there))).toEqual([]);
    expect(await typesOf(only(silent))).toEqual([]);
  });

  test('is not looked for where it became alive since the run began', async () => {
    const run = await claim();
    const born = await target.bear(1);
    await house.onStore('UPDATE mayfly.grants SET activated_at = clock_timestamp() WHERE id = $1', [only(born).id]);
    remove(born);
    const options = { installation: INSTALLATION, graceSeconds: 0 };
    const reading = new ReconcileRun(house.deps, run, target.session, options, new AbortController().signal);
    await reading.run();
    expect(reading.counts).toEqual(nothing);
  });

  test('is nobody’s loss where its end began meanwhile', async () => {
    const born = await target.bear(1);
    remove(born);
    const verify: Session['verify'] = async (refs, signal) => {
      await target.end(born);
      return await target.session.verify(refs, signal);
    };
    expect(await compare({ session: able({ verify }) })).toEqual(nothing);
    expect(await typesOf(only(born))).toEqual([]);
  });

  test('is found however many they are', async () => {
    const born = await target.bear(501);
    remove(born);
    expect(await compare()).toEqual({ ...nothing, lost: 501 });
  });
});

describe('what differs from what was granted', () => {
  const drifting = (...drift: readonly Drift[]) =>
    able({ inspect: async (granted) => granted.map((): Inspection => ({ ok: true, drift })) });
  const password: Drift = { what: 'password', says: 'it is another one' };
  const login: Drift = { what: 'login', says: 'it can not' };

  test('is told when it begins, changes, and ends', async () => {
    const born = await target.bear(1);
    expect(await compare({ session: drifting(password, login, password) })).toEqual({
      ...nothing,
      listed: 1,
      drifted: 1,
    });
    expect(house.observed).toEqual([['drifted', target.name, 1]]);
    expect(house.logs.map(({ event }) => event)).toEqual([
      { target: target.name, grant_id: only(born).id, drift: 'login,password' },
    ]);
    expect(await compare({ session: drifting(login, password) })).toEqual({ ...nothing, listed: 1 });
    expect(await compare({ session: drifting(login) })).toEqual({ ...nothing, listed: 1, drifted: 1 });
    expect(await compare({ session: drifting() })).toEqual({ ...nothing, listed: 1 });
    expect(await compare({ session: drifting() })).toEqual({ ...nothing, listed: 1 });
    expect(await house.told(only(born))).toMatchObject([
      { type: 'grant.drifted', payload: { target: target.name, drift: [password, login, password] } },
      { type: 'grant.drifted', payload: { drift: [login] } },
      { type: 'grant.drifted', payload: { drift: [] } },
    ]);
    expect(house.woken).toEqual([]);
  });

  test('is asked by the terms of the catalog as it is now, where it has any', async () => {
    const [known, gone] = [await target.bear(1), await target.bear(1)];
    await house.onStore(`UPDATE mayfly.grants SET entitlement = 'gone' WHERE id = $1`, [only(gone).id]);
    const asked: unknown[] = [];
    const inspect: Session['inspect'] = async (granted) => {
      asked.push(...granted.map(({ handle, config }) => [handle, config]));
      return granted.map((): Inspection => ({ ok: true, drift: [login] }));
    };
    const entitlement = (name: string) => (name === 'gone' ? undefined : { terms: name });
    expect(await compare({ session: able({ inspect }), deps: { ...house.deps, entitlement } })).toMatchObject({
      drifted: 1,
    });
    expect(asked).toEqual([[only(known).handle, { terms: `${target.name}/use` }]]);
    expect(await typesOf(only(known))).toEqual(['grant.drifted']);
    expect(await typesOf(only(gone))).toEqual([]);
  });

  test('is not asked about where nothing is known', async () => {
    await target.bear(1);
    const inspect = vi.fn<NonNullable<Session['inspect']>>();
    await compare({ session: able({ inspect }), deps: { ...house.deps, entitlement: () => undefined } });
    expect(inspect).not.toHaveBeenCalled();
  });

  test('keeps nothing else from being compared where it can not be seen', async () => {
    const born = await target.bear(1);
    unknownThere();
    await compare();
    const inspect = async () => await Promise.reject(new Error('not now'));
    expect(await compare({ session: able({ inspect }) })).toEqual({ ...nothing, listed: 2, orphans: 1 });
    expect(house.logs[0]).toMatchObject({
      event: { error: { message: 'not now' } },
      message: 'what was granted can not be inspected now',
    });
    const refused = async (): Promise<Inspection[]> => [{ ok: false, error: new ProviderError('denied', 'no') }];
    await compare({ session: able({ inspect: refused }) });
    expect(await typesOf(only(born))).toEqual([]);
  });
});

describe('use that was seen', () => {
  const at = (seconds: number, more: object = {}) => ({
    ...{ applicationName: 'psql', clientAddress: '10.0.0.1', state: null, lastQueryAt: null },
    ...{ since: new Date(Date.UTC(2026, 0, 1, 0, 0, seconds)), ...more },
  });
  const using = (total: number, ...sessions: ReturnType<typeof at>[]) =>
    able({ observe: async (refs) => refs.map((): Observation => ({ ok: true, total, sessions })) });

  test('is told of once for each session that is new', async () => {
    const born = await target.bear(1);
    expect(await compare({ session: using(0) })).toEqual({ ...nothing, listed: 1 });
    expect(await typesOf(only(born))).toEqual([]);
    await compare({ session: using(2, at(1), at(7), at(3)) });
    // The clocks were measured anew.
    await compare({ session: using(2, at(9)) });
    await compare({ session: using(1, at(10)) });
    const sessions = [1, 7, 3].map((second) => ({
      ...{ address: '10.0.0.1', application: 'psql', since: `2026-01-01T00:00:0${second}.000Z` },
    }));
    expect(await house.told(only(born))).toMatchObject([
      { type: 'grant.used', payload: { target: target.name, total: 2, sessions } },
      { type: 'grant.used', payload: { total: 1, sessions: [{ since: '2026-01-01T00:00:10.000Z' }] } },
    ]);
    expect([house.observed, house.logs, house.woken]).toEqual([[], [], []]);
  });

  test('is remembered while something else is told of the grant', async () => {
    const born = await target.bear(1);
    await compare({ session: using(1, at(5)) });
    const drift = [{ what: 'login', says: 'no' }] as const;
    const inspect = async (): Promise<Inspection[]> => [{ ok: true, drift }];
    await compare({ session: { ...using(1, at(5)), inspect } });
    await compare({ session: { ...using(1, at(5)), inspect } });
    expect(await typesOf(only(born))).toEqual(['grant.used', 'grant.drifted']);
  });

  test('keeps nothing else from being compared where it can not be seen', async () => {
    const born = await target.bear(1);
    const observe = async () => await Promise.reject(new Error('not now'));
    expect(await compare({ session: able({ observe }) })).toEqual({ ...nothing, listed: 1 });
    expect(house.logs[0]).toMatchObject({
      event: { error: { message: 'not now' } },
      message: 'use can not be observed now',
    });
    const refused = async (): Promise<Observation[]> => [{ ok: false, error: new ProviderError('denied', 'no') }];
    await compare({ session: able({ observe: refused }) });
    expect(await typesOf(only(born))).toEqual([]);
  });

  test('is not asked about where nothing of ours is there', async () => {
    const observe = vi.fn<NonNullable<Session['observe']>>();
    await compare({ session: able({ observe }) });
    expect(observe).not.toHaveBeenCalled();
  });
});

describe('what was ended and is there again', () => {
  async function endedBefore(state: 'contained' | 'clean', of: EngineTarget = target): Promise<Born> {
    const born = await of.bear(1);
    await of.end(born);
    const { id } = only(born);
    const step = (sql: string) => house.onStore(`UPDATE mayfly.revocations SET ${sql} WHERE grant_id = $1`, [id]);
    await step(`state = 'running', claim_number = nextval('mayfly.claim_numbers'), claimed_until = clock_timestamp()`);
    await step(`state = 'contained', contained_at = clock_timestamp(), try_at = 'infinity'`);
    if (state === 'clean') await step(`state = 'clean', clean_at = clock_timestamp()`);
    await house.onStore(`UPDATE mayfly.grants SET state = 'revoked' WHERE id = $1`, [id]);
    return only(born);
  }

  test('is revoked again, loudly: it was clean', async () => {
    const back = await endedBefore('clean');
    expect(await compare()).toEqual({ ...nothing, listed: 1, returned: 1 });
    expect(await house.standing(back)).toMatchObject({ state: 'revoking', revocation: 'due' });
    const [event] = await house.told(back);
    expect(event).toMatchObject({ type: 'revocation.returned', payload: { target: target.name } });
    expect(event?.payload['clean_at']).toMatch(/^20/);
    expect(house.observed).toEqual([['returned', target.name, 1]]);
    expect(house.logs).toMatchObject([
      { event: { target: target.name, grant_id: back.id, clean_at: event?.payload['clean_at'], alert: 'returned' } },
    ]);
    expect(house.changed).toEqual([back.taskId]);
    expect(house.woken).toEqual([target.name]);
  });

  test('is revoked again: it was contained, and can be used', async () => {
    const [open, shut] = [await endedBefore('contained'), await endedBefore('contained')];
    target.synthetic.system.cut(shut.handle);
    expect(await compare()).toEqual({ ...nothing, listed: 2, returned: 1 });
    expect(await house.standing(open)).toMatchObject({ state: 'revoking', revocation: 'due' });
    expect(await house.standing(shut)).toMatchObject({ state: 'revoked', revocation: 'contained' });
  });

  test('is not, where it was cleaned while the target was read', async () => {
    const back = await endedBefore('clean');
    let lists = 0;
    const list: Session['list'] = async (signal) => {
      lists += 1;
      return lists === 1 ? ((await target.session.list?.(signal)) ?? []) : [];
    };
    expect(await compare({ session: able({ list }) })).toEqual({ ...nothing, listed: 1 });
    expect(await house.standing(back)).toMatchObject({ revocation: 'clean' });
    expect(house.woken).toEqual([]);
  });

  test.each(['clean', 'contained'] as const)(
    'is not ours to take back where it is of another target: %s',
    async (state) => {
      const other = house.target();
      const theirs = await endedBefore(state, other);
      unknownThere(theirs.id);
      expect(await compare()).toEqual({ ...nothing, listed: 1 });
      expect(await house.standing(theirs)).toMatchObject({ revocation: state });
    },
  );
});

describe('a run that another has taken over', () => {
  test('ends, and records nothing', async () => {
    unknownThere();
    const run = await claim();
    await house.onStore('UPDATE mayfly.reconciliations SET claim_number = claim_number + 1 WHERE target = $1', [
      target.name,
    ]);
    const options = { installation: INSTALLATION, graceSeconds: 0 };
    const reading = new ReconcileRun(house.deps, run, target.session, options, new AbortController().signal);
    await expect(reading.run()).rejects.toBeInstanceOf(RunLost);
    expect(house.observed).toEqual([]);
  });

  test('is called off while the target is read', async () => {
    const reading = new AbortController();
    const list = async () => {
      reading.abort(new Error('called off'));
      return await new Promise<never>(() => {});
    };
    await expect(compare({ session: able({ list }), signal: reading.signal })).rejects.toThrow('called off');
    await release();
  });
});

describe('the reconciler', () => {
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

  const runs = () =>
    house.observed.filter(([name]) => name === 'reconciled').map(([, name, outcome]) => [name, outcome]);

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
    expect(taken).toBeLessThan(5);
    const { result, seconds, claimed_by: holder, reconciled } = await row();
    expect(result).toEqual({ ...nothing, outcome: 'done', says: '', listed: 2 });
    expect([holder, reconciled]).toEqual([null, true]);
    expect(seconds).toBeGreaterThan(85);
    expect(seconds).toBeLessThanOrEqual(90);
    // Nothing was found, and nothing is told.
    expect(await house.told(target.name)).toEqual([]);
    expect(house.logs).toEqual([]);
    expect(house.observed).toContainEqual(['unreconciled', new Set(), [target.name]]);
  });

  test('tells what it found', async () => {
    unknownThere();
    unknownThere(randomUUID(), randomUUID());
    await compare();
    await once();
    expect(await house.told(target.name)).toMatchObject([
      {
        ...{ type: 'target.reconciled', correlation_id: 'worker-1' },
        payload: { ...nothing, outcome: 'done', says: '', listed: 2, orphans: 1, unverified: 1 },
      },
    ]);
    expect(house.observed).toContainEqual(['unverified', target.name, 1]);
  });

  test('looks sooner where something waits for its grace, and does not call that reconciled', async () => {
    unknownThere();
    await once({ graceSeconds: 10 });
    const { seconds, reconciled, result } = await row();
    expect(result).toMatchObject({ outcome: 'done', waiting: 1 });
    expect(reconciled).toBe(false);
    expect(seconds).toBeGreaterThan(8);
    expect(seconds).toBeLessThanOrEqual(9.9);
  });

  test('that could not see whose the target is tries again sooner, and tells it once', async () => {
    const prove = async () => await Promise.reject(new ProviderError('retryable', 'away'));
    await once({ ownership: { prove } });
    await once({ ownership: { prove } });
    const { result, seconds, reconciled } = await row();
    expect(result).toEqual({ ...nothing, outcome: 'failed', says: 'away' });
    expect(reconciled).toBe(false);
    expect(seconds).toBeGreaterThan(25);
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
    expect(seconds).toBeGreaterThan(85);
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
      const created = await create({ leaseSeconds: 0.4 });
      created.start();
      await held.reached;
      await house.onStore('SELECT pg_sleep(0.6)');
      expect(
        (
          await house.onStore(
            'SELECT claimed_until > clock_timestamp() AS held FROM mayfly.reconciliations WHERE target = $1',
            [target.name],
          )
        )[0],
      ).toEqual({ held: true });
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
      const created = await create({ leaseSeconds: 0.2 });
      created.start();
      await held.reached;
      const lists = target.synthetic.count('list');
      await requestRuns(house.db, [target.name]);
      await house.onStore('SELECT pg_sleep(1.1)');
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
          event: { before: 99, after: 1, alert: 'failed_over' },
          message: expect.stringContaining('the store is on another timeline'),
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
      expect((await row()).seconds).toBeGreaterThan(85);
      expect(await noticeFailover(house.deps, [target.name])).toEqual(new Set());
    });
  });
});
