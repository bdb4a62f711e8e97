import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import {
  type Drift,
  type Found,
  type Inspection,
  type Observation,
  ProviderError,
  type Session,
} from '../../src/provider.ts';
import type { ReconcileDeps } from '../../src/revocation/reconcile-deps.ts';
import { type Counts, ReconcileRun, RunLost, type RunOptions } from '../../src/revocation/reconcile-run.ts';
import { claimRun, requestRuns, type RunClaim } from '../../src/store/reconciliations.ts';
import {
  type Born,
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
    expect(await compare({ session: able({ inspect }) })).toEqual({
      ...{ ...nothing, listed: 2, orphans: 1, uninspected: 1 },
    });
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
