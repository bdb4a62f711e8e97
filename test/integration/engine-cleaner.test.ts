import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { Cleaner } from '../../src/revocation/cleaner.ts';
import { endBatch } from '../../src/revocation/end-batch.ts';
import { Database } from '../../src/store/database.ts';
import {
  type BirthOptions,
  type Born,
  type EngineHouse,
  type EngineTarget,
  startEngineHouse,
  only,
  seconds,
} from '../support/engine.ts';
import { answers, badHandle, hangs, lies, refuses } from '../support/synthetic/faults.ts';

let house: EngineHouse;
beforeAll(async () => {
  house = await startEngineHouse();
});
afterAll(async () => {
  await house?.stop();
});

let target: EngineTarget;
let cleaner: Cleaner;
/** How many were tried, and to how many the target said nothing. */
let told: (readonly [number, number])[];
beforeEach(() => {
  target = house.target();
  told = [];
  cleaner = new Cleaner(house.deps, target.name, (items, silent) => told.push([items, silent]));
  for (const list of [house.observed, house.logs, house.changed]) list.splice(0);
});
afterEach(async () => {
  vi.useRealTimers();
  await cleaner.idle();
});

/** Some that are contained and wait to be cleaned. */
async function contained(count: number, options: BirthOptions = {}) {
  const born = await target.bear(count, options);
  await target.end(born);
  const claim = await target.claim('worker-1', count);
  const ended = (await endBatch(house.deps, claim)).contained;
  expect(ended).toHaveLength(count);
  house.observed.splice(0);
  house.changed.splice(0);
  return { born, claim, ended };
}

function reaps(): number[] {
  return target.synthetic.calls.filter(({ operation }) => operation === 'reap').map(({ handles }) => handles.length);
}

describe('what is contained', () => {
  test('is removed, looked at once more, and only then called clean', async () => {
    const { born, claim, ended } = await contained(2);
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(target.synthetic.calls.slice(-2).map(({ operation }) => operation)).toEqual(['reap', 'verify']);
    for (const one of born) {
      expect(target.synthetic.system.find(one.handle)).toBeUndefined();
      const evidence = { incarnation: target.synthetic.system.incarnation, seen: 'absent' };
      expect(await house.standing(one)).toMatchObject({
        ...{ state: 'revoked', revocation: 'clean', last_error: null, claimed_by: null },
        evidence: { cut: true, ...evidence },
      });
      expect((await house.told(one)).at(-1)).toMatchObject({
        ...{ type: 'revocation.clean', correlation_id: `worker-1#${claim.number}`, cause: 'completed' },
        payload: { target: target.name, handle: one.handle, evidence },
      });
    }
    expect(told).toEqual([[2, 0]]);
    expect(new Set(house.changed)).toEqual(new Set(born.map(({ taskId }) => taskId)));
    expect(house.logs).toEqual([]);
    expect(house.observed).toEqual([]);
  });

  test('is nothing where nothing was added', async () => {
    const { claim } = await contained(1);
    cleaner.add(claim, []);
    await cleaner.idle();
    expect(told).toEqual([]);
    expect(reaps()).toEqual([]);
  });

  test('is cleaned together with what came while a batch was at work', async () => {
    const [first, second, third] = [await contained(1), await contained(1), await contained(2)];
    const held = target.synthetic.holds.hold('reap.sent');
    cleaner.add(first.claim, first.ended);
    await held.reached;
    cleaner.add(second.claim, second.ended);
    cleaner.add(third.claim, third.ended);
    held.release();
    await cleaner.idle();
    expect(reaps()).toEqual([1, 3]);
    expect(told).toEqual([
      [1, 0],
      [3, 0],
    ]);
    cleaner.add(...([first.claim, (await contained(1)).ended] as const));
    await cleaner.idle();
    expect(reaps()).toEqual([1, 3, 1]);
  });

  test('is cleaned a hundred at a time', async () => {
    const { claim, ended } = await contained(101);
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(reaps()).toEqual([100, 1]);
  });

  test('is left to whoever claims it again when it has waited for longer than its claim holds', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const [first, second] = [await contained(1), await contained(1)];
    const held = target.synthetic.holds.hold('reap.sent');
    cleaner.add(first.claim, first.ended);
    await held.reached;
    cleaner.add(second.claim, second.ended);
    vi.advanceTimersByTime(15_000);
    held.release();
    await cleaner.idle();
    expect(reaps()).toEqual([1]);
    expect(await house.standing(only(second.born))).toMatchObject({ revocation: 'contained' });
  });
});

test('what lost its facts was proven absent when it was contained, and is not asked about again', async () => {
  const tenure = '01980000-0000-7000-8000-0000000000aa';
  target.synthetic.keepsRecord = true;
  await house.onStore(
    `INSERT INTO mayfly.tenures (tenure, target, beat, beat_at, begun_at) VALUES ($1, $2, 2, clock_timestamp(), clock_timestamp() - interval '1 minute')`,
    [tenure, target.name],
  );
  await target.session.hold?.(AbortSignal.timeout(1_000), { store: 's', tenure, beat: 2 });
  const { born, claim, ended } = await contained(1, { lost: true, unmade: true });
  const asked = vi.spyOn(target.session, 'hold');
  cleaner.add(claim, ended);
  await cleaner.idle();
  expect(asked).not.toHaveBeenCalled();
  expect(await house.standing(only(born))).toMatchObject({ revocation: 'clean' });
});

describe('what may not be cleaned yet', () => {
  test.each([
    ['when the provider asks for it', 5_000, 5],
    ['within the hour, whatever the provider says', 36_000_000, 3_600],
    ['after a second at least', 900, 1],
  ])('is nobody’s until it is looked at again %s', async (_, delay, putOff) => {
    const { born, claim, ended } = await contained(1);
    const [before] = await house.onStore<{ now: Date }>('SELECT clock_timestamp() AS now');
    // From now on, not from when it was cut, which is longer ago on a busy machine.
    target.synthetic.reapDelayMillis = Date.now() - (target.synthetic.system.cutAt(only(born).handle) ?? 0) + delay;
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({
      ...{ revocation: 'contained', last_error: null, claimed_by: null, seconds_to_try: seconds(-60, putOff) },
    });
    const [after] = await house.onStore<{ seconds: number }>(
      'SELECT extract(epoch FROM try_at - $1::timestamptz)::float8 AS seconds FROM mayfly.revocations WHERE grant_id = $2',
      [before?.now, only(born).id],
    );
    // The store's clock and this one are the same: each rounds to a millisecond.
    expect(after?.seconds).toBeGreaterThan(putOff - 0.01);
    expect((await house.told(only(born))).map(({ type }) => type)).toEqual(['revocation.contained']);
    expect(told).toEqual([[1, 0]]);
    expect(target.synthetic.calls.at(-1)?.operation).toBe('reap');
  });

  test('holds up none of its neighbours', async () => {
    const { born, claim, ended } = await contained(2);
    const later = { ok: true, evidence: {}, notBefore: new Date(Date.now() + 60_000) };
    target.synthetic.faults.set('reap', badHandle(only(born).handle, later));
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'contained', claimed_by: null });
    expect(await house.standing(only(born.slice(1)))).toMatchObject({ revocation: 'clean' });
  });

  test.each([
    ['a time that has come', new Date(0)],
    ['no time at all', 'tomorrow'],
  ])('is not what names %s', async (_, notBefore) => {
    const { born, claim, ended } = await contained(1);
    target.synthetic.faults.set(
      'reap',
      answers((honest) => honest.map((answer) => ({ ...Object(answer), notBefore }))),
    );
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'clean' });
  });

  test('and was refused is a failure, whatever time it names', async () => {
    const { born, claim, ended } = await contained(1);
    const refused = { ok: false, error: 'boom', notBefore: new Date(Date.now() + 60_000) };
    target.synthetic.faults.set('reap', badHandle(only(born).handle, refused));
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({
      last_error: 'retryable',
      seconds_to_try: seconds(-60, 1),
    });
  });
});

describe('what can not be cleaned', () => {
  test('is not called clean by what reap said', async () => {
    target.synthetic.faults.set('reap', lies);
    const { born, claim, ended } = await contained(1);
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'contained', last_error: 'retryable' });
    expect((await house.told(only(born))).at(-1)).toMatchObject({
      ...{ type: 'revocation.attempted', payload: { says: 'the target does not look clean yet', contained: true } },
    });
    expect(told).toEqual([[1, 0]]);
    expect(house.observed).toEqual([['failed', target.name, 'retryable']]);
  });

  test('is not clean where it is not contained', async () => {
    const { born, claim, ended } = await contained(1);
    const odd = { ok: true, contained: false, clean: true, evidence: {} };
    target.synthetic.faults.set('verify', badHandle(only(born).handle, odd));
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'contained', last_error: 'retryable' });
  });

  test('since the target says nothing takes with it what waits behind', async () => {
    const [first, second] = [await contained(1), await contained(1)];
    target.synthetic.faults.set('reap', refuses('retryable', 'away'));
    const held = target.synthetic.holds.hold('reap.sent');
    cleaner.add(first.claim, first.ended);
    await held.reached;
    cleaner.add(second.claim, second.ended);
    held.release();
    await cleaner.idle();
    expect(reaps()).toEqual([1]);
    expect(told).toEqual([[1, 1]]);
    expect(house.logs[0]).toMatchObject({ event: { target: target.name, error: { message: 'away' } } });
    expect(await house.standing(only(first.born))).toMatchObject({ revocation: 'contained', last_error: 'retryable' });
    expect(await house.standing(only(second.born))).toMatchObject({ revocation: 'contained', last_error: null });
  });

  test('is not counted when its claim was lost meanwhile', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    target.synthetic.faults.set('reap', hangs);
    const { born, claim, ended } = await contained(1);
    cleaner.add(claim, ended);
    await vi.waitFor(() => expect(reaps()).toEqual([1]));
    await house.onStore('UPDATE mayfly.revocations SET claim_number = claim_number + 1000 WHERE grant_id = $1', [
      only(born).id,
    ]);
    vi.advanceTimersByTime(1_500);
    await cleaner.idle();
    expect(told).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test('stops its heart with the batch', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const { claim, ended } = await contained(1);
    cleaner.add(claim, ended);
    await cleaner.idle();
    expect(vi.getTimerCount()).toBe(0);
  });

  test('since the store does not answer is let go, and another batch can follow', async () => {
    const { born, claim, ended } = await contained(1);
    const away = new Database({ url: new Secret('postgres://x@127.0.0.1:1/x'), connections: 1, onError: () => {} });
    const lonely = new Cleaner({ ...house.deps, db: away }, target.name, (...counts) => told.push(counts));
    lonely.add(claim, ended);
    await lonely.idle();
    expect(told).toEqual([[1, 0]]);
    expect(house.logs.map(({ message }) => message)).toEqual([
      'cleaning failed; it is tried again',
      'a revocation is not done yet',
      'what was cleaned can not be recorded now',
    ]);
    expect(house.logs.at(-1)?.event).toMatchObject({ target: target.name, error: { code: 'store_unavailable' } });
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'contained' });
    lonely.add(claim, ended);
    await lonely.idle();
    expect(told).toHaveLength(2);
    await away.close();
  });
});

describe('what was granted at another address', () => {
  let before: EngineTarget;
  beforeEach(() => {
    before = house.target();
    // Another address of the same system.
    before.synthetic.system = target.synthetic.system;
    house.sessions.set(`${target.name}@7`, before.session);
  });

  const calls = (of: EngineTarget) => of.synthetic.calls.map(({ operation, handles }) => [operation, handles]);

  async function clean(options: BirthOptions = {}): Promise<readonly Born[]> {
    const some = await contained(2, { revision: 7, ...options });
    before.synthetic.calls.splice(0);
    cleaner.add(some.claim, some.ended);
    await cleaner.idle();
    return some.born;
  }

  test('is ended there too, in case that counts it as living for ever', async () => {
    const born = await clean();
    const handles = sortedHandles(born);
    expect(calls(before).map(([operation, given]) => [operation, [...(given as string[])].sort()])).toEqual([
      ['fence', handles],
      ['reap', handles],
    ]);
    for (const one of born) expect(await house.standing(one)).toMatchObject({ revocation: 'clean' });
    expect(house.logs).toEqual([]);
  });

  test('is nobody’s failure where that address is dead', async () => {
    before.synthetic.faults.set('fence', refuses('retryable', 'dead'));
    for (const one of await clean()) expect(await house.standing(one)).toMatchObject({ revocation: 'clean' });
    expect(house.logs).toMatchObject([{ event: { target: target.name, error: { message: 'dead' } } }]);
    expect(told).toEqual([[2, 0]]);
  });

  test('is left alone there where its fence is a document with one writer', async () => {
    before = house.target('document');
    house.sessions.set(`${target.name}@7`, before.session);
    await clean();
    expect(calls(before)).toEqual([]);
  });

  test('and is the same one is told nothing twice', async () => {
    const fences = () => target.synthetic.count('fence');
    const { claim, ended: some } = await contained(1);
    const fenced = fences();
    cleaner.add(claim, some);
    await cleaner.idle();
    expect(fences()).toBe(fenced);
    expect(reaps()).toEqual([1]);
  });

  function sortedHandles(born: readonly Born[]): string[] {
    return born.map(({ handle }) => handle).sort();
  }
});

test('each is cleaned on the session on which it was seen contained', async () => {
  const other = house.target();
  const { claim, ended } = await contained(2);
  const [here, there] = [only(ended), only(ended.slice(1))];
  cleaner.add(claim, [here, { ...there, session: other.session }]);
  await cleaner.idle();
  expect(target.synthetic.calls.find(({ operation }) => operation === 'reap')?.handles).toEqual([here.item.handle]);
  expect(other.synthetic.calls.map(({ operation, handles }) => [operation, handles])).toEqual([
    ['reap', [there.item.handle]],
  ]);
});
