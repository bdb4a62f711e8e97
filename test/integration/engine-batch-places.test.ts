import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { endBatch } from '../../src/revocation/end-batch.ts';
import type { Claim } from '../../src/store/claims.ts';
import {
  type BirthOptions,
  type Born,
  type EngineHouse,
  type EngineTarget,
  startEngineHouse,
  bareSession,
  only,
} from '../support/engine.ts';
import { refuses } from '../support/synthetic/faults.ts';

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
  for (const list of [house.observed, house.logs, house.changed]) list.splice(0);
});

describe('where the connection of a target was changed since', () => {
  let before: EngineTarget;
  beforeEach(() => {
    before = house.target();
    house.sessions.set(`${target.name}@7`, before.session);
  });

  /** Made at the address of before. */
  async function madeBefore(
    count: number,
    options: BirthOptions = {},
  ): Promise<{ born: readonly Born[]; claim: Claim }> {
    const now = target.synthetic.system;
    target.synthetic.system = before.synthetic.system;
    const born = await target.bear(count, { revision: 7, ...options });
    target.synthetic.system = now;
    await target.end(born);
    return { born, claim: await target.claim() };
  }

  test('what the system of now does not know is ended where it was granted', async () => {
    const { born, claim } = await madeBefore(2);
    const { contained, asked, silent } = await endBatch(house.deps, claim);
    expect([asked, silent]).toEqual([2, 0]);
    expect(contained.map(({ session }) => session)).toEqual([before.session, before.session]);
    for (const { handle } of born) expect(before.synthetic.system.accepts(handle)).toBe(false);
    for (const one of born) {
      expect(await house.standing(one)).toMatchObject({ revocation: 'contained', last_error: null });
      expect((await house.told(one)).map(({ type }) => type)).toEqual(['revocation.contained']);
    }
    expect(house.observed.filter(([name]) => name === 'failed')).toEqual([]);
  });

  test('what could be ended at the address of now is not sent to the other one', async () => {
    const old = await madeBefore(1);
    const newer = await target.bear(1, { revision: 7 });
    await target.end(newer);
    const claim = await target.claim();
    const all = { ...claim, items: [...old.claim.items, ...claim.items] };
    expect((await endBatch(house.deps, all)).contained).toHaveLength(2);
    const fenced = before.synthetic.calls.filter(({ operation }) => operation === 'fence');
    expect(fenced.map(({ handles }) => handles)).toEqual([[only(old.born).handle]]);
  });

  test('what can be ended at neither says so of both, with the class of the first', async () => {
    const { born, claim } = await madeBefore(1);
    before.synthetic.faults.set('fence', refuses('denied', 'No.'));
    await endBatch(house.deps, claim);
    const says = 'Another system stands behind this name.; elsewhere: No.';
    expect(only(await house.told(only(born))).payload).toMatchObject({ error_class: 'misconfigured', says });
  });

  test('an address that can not be opened is no failure of its own', async () => {
    const { born, claim } = await madeBefore(1);
    const targetAt: typeof house.deps.targetAt = async (name, revision, asGranted) =>
      asGranted
        ? await Promise.reject(new Error('no such revision'))
        : await house.deps.targetAt(name, revision, false);
    await endBatch({ ...house.deps, targetAt }, claim);
    expect(only(await house.told(only(born))).payload).toMatchObject({
      ...{ error_class: 'misconfigured', says: 'Another system stands behind this name.' },
    });
    expect(house.logs[0]).toMatchObject({
      event: { target: target.name, claim: String(claim.number) },
      message: 'the other address can not be tried',
    });
  });

  test('what lost its facts is ended where it was granted, at first', async () => {
    const { born, claim } = await madeBefore(1, { lost: true });
    const { contained } = await endBatch(house.deps, claim);
    expect(only(contained).session).toBe(before.session);
    expect(before.synthetic.system.accepts(only(born).handle)).toBe(false);
    expect(target.synthetic.count('fence')).toBe(0);
  });

  test('what lost its facts is recognised at the address of now where the old one is dead, by what that lists', async () => {
    before.synthetic.faults.set('fence', refuses('retryable', 'dead'));
    const there = await target.bear(1, { revision: 7, lost: true });
    const nowhere = await target.bear(1, { revision: 7, lost: true, unmade: true });
    await target.end([...there, ...nowhere]);
    const { contained } = await endBatch(house.deps, await target.claim());
    expect(contained.map(({ item }) => item.handle)).toEqual(there.map(({ handle }) => handle));
    expect(only(contained)).toMatchObject({
      session: target.session,
      item: { facts: { incarnation: target.synthetic.system.incarnation } },
    });
    expect(await house.standing(only(there))).toMatchObject({ revocation: 'contained' });
    expect(only(await house.told(only(nowhere))).payload).toMatchObject({
      error_class: 'retryable',
      says: 'dead; elsewhere: it is not there, which proves nothing',
    });
  });

  test('absence at an address that lists nothing proves nothing', async () => {
    before.synthetic.faults.set('fence', refuses('retryable', 'dead'));
    house.sessions.set(target.name, bareSession(target.session));
    const born = await target.bear(1, { revision: 7, lost: true });
    await target.end(born);
    expect(await endBatch(house.deps, await target.claim())).toMatchObject({ contained: [], asked: 1, silent: 1 });
    expect(target.synthetic.count('fence')).toBe(0);
    expect(only(await house.told(only(born))).payload).toMatchObject({
      says: 'dead; elsewhere: it is not there, which proves nothing',
    });
  });

  test('those of each revision go to their own address', async () => {
    const other = house.target();
    house.sessions.set(`${target.name}@8`, other.session);
    const old = await madeBefore(1);
    const now = target.synthetic.system;
    target.synthetic.system = other.synthetic.system;
    const newer = await target.bear(1, { revision: 8 });
    target.synthetic.system = now;
    await target.end(newer);
    const claim = await target.claim();
    await endBatch(house.deps, { ...claim, items: [...old.claim.items, ...claim.items] });
    expect(before.synthetic.system.accepts(only(old.born).handle)).toBe(false);
    expect(other.synthetic.system.accepts(only(newer).handle)).toBe(false);
    expect(before.synthetic.calls.find(({ operation }) => operation === 'fence')?.handles).toEqual([
      only(old.born).handle,
    ]);
  });
});

describe('what lost its facts, and is absent', () => {
  async function absent(): Promise<{ one: Born; claim: Claim }> {
    const { born, claim } = await target.claimed(1, { lost: true, unmade: true });
    return { one: only(born), claim };
  }
  const hold = async (tenure: string) => {
    target.synthetic.keepsRecord = true;
    await target.session.hold?.(AbortSignal.timeout(1_000), { store: 's', tenure, beat: 2 });
  };
  const knowTenure = (tenure: string, begun: string) =>
    house.onStore(
      `INSERT INTO mayfly.tenures (tenure, target, beat, beat_at, begun_at) VALUES ($1, $2, 2, clock_timestamp(), clock_timestamp() + $3::interval)`,
      [tenure, target.name, begun],
    );
  const TENURE = '01980000-0000-7000-8000-0000000000aa';
  let n = 0;
  const next = () => TENURE.slice(0, -4) + String(++n).padStart(4, '0');

  test('proves nothing where the target keeps no record of its holder', async () => {
    const { one, claim } = await absent();
    target.synthetic.keepsRecord = false;
    await endBatch(house.deps, claim);
    expect(await house.standing(one)).toMatchObject({ revocation: 'due', last_error: 'misconfigured' });
  });

  test('proves nothing where the target shows a holder that this store does not know', async () => {
    const { one, claim } = await absent();
    await hold(next());
    await endBatch(house.deps, claim);
    expect(await house.standing(one)).toMatchObject({ revocation: 'due', last_error: 'misconfigured' });
    const [{ payload } = { payload: {} }] = await house.told(one);
    expect(payload).toMatchObject({ says: expect.stringContaining('its facts were lost') });
  });

  test('counts where the target was ours already when it was intended', async () => {
    const tenure = next();
    await knowTenure(tenure, '-1 minute');
    const { one, claim } = await absent();
    await hold(tenure);
    await endBatch(house.deps, claim);
    expect(await house.standing(one)).toMatchObject({ revocation: 'contained' });
  });

  test('proves nothing where its session can tell of no holder at all', async () => {
    const { one, claim } = await absent();
    house.sessions.set(target.name, bareSession(target.session));
    await endBatch(house.deps, claim);
    expect(await house.standing(one)).toMatchObject({ revocation: 'due', last_error: 'misconfigured' });
  });

  test('is nobody’s to look for where nothing is absent', async () => {
    const { claim } = await target.claimed(2);
    const asked = vi.spyOn(target.session, 'hold');
    await endBatch(house.deps, claim);
    expect(asked).not.toHaveBeenCalled();
  });

  test('matters not where it was seen to be there, or its facts are known', async () => {
    await hold(next());
    const there = await target.bear(1, { lost: true });
    const known = await target.bear(1);
    target.synthetic.system.remove(only(known).handle);
    await target.end([...there, ...known]);
    const { contained } = await endBatch(house.deps, await target.claim());
    expect(contained).toHaveLength(2);
  });
});
