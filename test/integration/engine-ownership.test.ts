import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, type MockInstance, test, vi } from 'vitest';
import type { Holder, Session } from '../../src/provider.ts';
import { Ownership, type OwnershipOptions, Stranger } from '../../src/revocation/ownership.ts';
import { type EngineHouse, type EngineTarget, INSTALLATION, startEngineHouse, bareSession } from '../support/engine.ts';

let house: EngineHouse;
beforeAll(async () => {
  house = await startEngineHouse();
});
afterAll(async () => {
  await house?.stop();
});

let target: EngineTarget;
let session: Session;
let ownership: Ownership;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] });
  target = house.target();
  target.synthetic.keepsRecord = true;
  session = target.session;
  ownership = create();
  for (const list of [house.observed, house.logs]) list.splice(0);
});
afterEach(async () => {
  await ownership.stop();
  vi.useRealTimers();
});

const STORE = 'store-1';
const SILENCE = 35_000;

function create(options: Partial<OwnershipOptions> = {}): Ownership {
  return new Ownership({
    ...{ deps: house.deps, db: house.db, installation: INSTALLATION, store: STORE, beatSeconds: 0 },
    ...options,
  });
}

const prove = () => ownership.prove(target.name, session);

/** What the target shows of its holder. */
function holder(): Holder {
  return target.synthetic.system.hold(INSTALLATION);
}

/** Writes into the target, as whoever has this tenure. */
function write(tenure: string, beat: number, store = STORE, installation = INSTALLATION): void {
  target.synthetic.system.hold(installation, { store, tenure, beat });
}

async function know(tenure: string, beat: number, lost = false): Promise<void> {
  await house.onStore(
    `INSERT INTO mayfly.tenures (tenure, target, beat, beat_at, lost_at) VALUES ($1, $2, $3, clock_timestamp(), $4)`,
    [tenure, target.name, beat, lost ? new Date() : null],
  );
}

async function stored(): Promise<readonly { tenure: string; beat: number; lost: boolean }[]> {
  return await house.onStore(
    'SELECT tenure, beat::int AS beat, lost_at IS NOT NULL AS lost FROM mayfly.tenures WHERE target = $1',
    [target.name],
  );
}

const strangers = () => house.observed.filter(([name]) => name === 'stranger').map(([, , is]) => is);

describe('a target without a record of its holder', () => {
  test('is ours where its session can not hold anything', async () => {
    const bare = bareSession(session);
    expect(ownership.guard(target.name, bare)).toBe(bare);
    await ownership.prove(target.name, bare);
    expect(house.observed).toEqual([]);
  });

  test('is ours where it says that it keeps none', async () => {
    target.synthetic.keepsRecord = false;
    await prove();
    expect(house.observed).toEqual([['stranger', target.name, false]]);
    expect(await stored()).toEqual([]);
  });
});

describe('a target that nobody holds', () => {
  test('is held from then on, in the store first and then in the target', async () => {
    await prove();
    const [tenure, ...others] = await stored();
    expect(others).toEqual([]);
    expect(tenure).toMatchObject({ beat: 2, lost: false });
    expect(holder()).toEqual({ installation: INSTALLATION, epoch: 1, store: STORE, tenure: tenure?.tenure, beat: 2 });
    expect(strangers()).toEqual([false]);
    expect(house.logs).toEqual([]);
  });

  test('is taken by one of two who begin at once', async () => {
    const other = create();
    await Promise.all([prove(), other.prove(target.name, session)]);
    const kept = holder().tenure;
    expect((await stored()).map(({ tenure }) => tenure)).toContain(kept);
    expect(strangers()).toEqual([false, false]);
  });
});

describe('a target that another holds', () => {
  const refused = (says: string) => ({
    ...{ name: 'Stranger', errorClass: 'misconfigured', wholeTarget: true },
    message: `${says} (read-only until mayfly target adopt ${target.name})`,
  });

  test.each([
    ['another installation', 'the target belongs to installation other', () => write(randomUUID(), 3, STORE, 'other')],
    [
      'another store',
      'another store of this installation holds the target: is this one a copy?',
      () => write(randomUUID(), 3, 'store-2'),
    ],
    [
      'a tenure that this store does not know',
      'the target was adopted by another, or by this store in a time that it forgot',
      () => write(randomUUID(), 3),
    ],
  ])('is refused: %s', async (_, says, theirs) => {
    theirs();
    await expect(prove()).rejects.toBeInstanceOf(Stranger);
    await expect(prove()).rejects.toMatchObject(refused(says));
    // It is told once, and nothing is written there.
    expect(await house.told(target.name)).toMatchObject([
      { type: 'target.held_elsewhere', payload: { says, epoch: 1 } },
    ]);
    expect(house.logs).toEqual([
      { event: { target: target.name, epoch: 1, alert: 'stranger' }, message: refused(says).message },
    ]);
    expect(strangers()).toEqual([true, true]);
    expect(holder().beat).toBe(3);
  });

  test('is refused where this store has lost it to another one', async () => {
    const tenure = randomUUID();
    await know(tenure, 9, true);
    write(tenure, 3);
    const says = 'another broker of this installation is alive and holds the target';
    await expect(prove()).rejects.toMatchObject(refused(says));
    expect(holder().beat).toBe(3);
  });

  test('is refused as soon as it is looked at again, and ours once it is given back', async () => {
    await prove();
    const ours = target.synthetic.replace();
    write(randomUUID(), 1, 'store-2');
    vi.advanceTimersByTime(SILENCE);
    await expect(prove()).rejects.toBeInstanceOf(Stranger);
    target.synthetic.system = ours;
    await prove();
    expect(strangers()).toEqual([false, true, false]);
  });

  test('belongs to nobody of this installation, even where no beat was written yet', async () => {
    const none = { installation: 'other', epoch: 4, store: null, tenure: null, beat: 0 };
    vi.spyOn(session, 'hold').mockResolvedValue(none);
    await expect(prove()).rejects.toBeInstanceOf(Stranger);
    expect(await stored()).toEqual([]);
    expect(await house.told(target.name)).toMatchObject([{ payload: { epoch: 4 } }]);
  });

  test('is left alone where a record vanished between two looks', async () => {
    const hold = vi.spyOn(session, 'hold');
    hold.mockResolvedValueOnce({ installation: INSTALLATION, epoch: 1, store: null, tenure: null, beat: 0 });
    hold.mockResolvedValueOnce(null);
    await expect(prove()).rejects.toMatchObject({ errorClass: 'retryable', wholeTarget: true });
    expect(strangers()).toEqual([]);
  });
});

describe('a beat that this store knows nothing of', () => {
  const tenure = () => holder().tenure ?? '';
  const waits = {
    ...{ errorClass: 'retryable', wholeTarget: true },
    message: 'the target shows a holder that this store does not know: waiting whether it is alive',
  };
  beforeEach(async () => {
    const id = randomUUID();
    await know(id, 5);
    write(id, 7);
  });

  test('is waited for while it may be alive, and taken up once it stood still for long enough', async () => {
    await expect(prove()).rejects.toMatchObject(waits);
    expect(house.logs).toEqual([{ event: { target: target.name, beat: 7 }, message: waits.message }]);
    vi.advanceTimersByTime(SILENCE - 1);
    await expect(prove()).rejects.toMatchObject(waits);
    expect(holder().beat).toBe(7);
    expect(strangers()).toEqual([]);
    vi.advanceTimersByTime(1);
    await prove();
    expect(holder().beat).toBe(8);
    expect(await stored()).toMatchObject([{ beat: 8, lost: false }]);
    expect(house.logs.slice(-2)).toMatchObject([
      {
        event: { target: target.name },
        message: 'nobody else holds the target: the store had lost its last moments',
      },
      { event: { alert: 'failed_over' }, message: expect.stringContaining('may have forgotten') },
    ]);
    expect(strangers()).toEqual([false]);
  });

  test('that goes on is of another, and the tenure is lost to it', async () => {
    await expect(prove()).rejects.toMatchObject(waits);
    write(tenure(), 8);
    await expect(prove()).rejects.toBeInstanceOf(Stranger);
    expect(await stored()).toMatchObject([{ beat: 5, lost: true }]);
    expect(holder().beat).toBe(8);
    expect(strangers()).toEqual([true]);
    vi.advanceTimersByTime(2 * SILENCE);
    await expect(prove()).rejects.toBeInstanceOf(Stranger);
  });

  test('was taken up, and is waited for anew when it goes on later', async () => {
    await expect(prove()).rejects.toMatchObject(waits);
    vi.advanceTimersByTime(SILENCE);
    await prove();
    // Soon after, so that nobody has held it for long.
    write(tenure(), 20);
    const again = create();
    await expect(again.prove(target.name, session)).rejects.toMatchObject(waits);
    expect(await stored()).toMatchObject([{ lost: false }]);
  });

  test('is none where the store has the higher one', async () => {
    await house.onStore('UPDATE mayfly.tenures SET beat = 9 WHERE tenure = $1', [tenure()]);
    await prove();
    expect(holder().beat).toBe(10);
    expect(house.logs).toEqual([]);
  });

  test('is none where it is the very one that the store has', async () => {
    await house.onStore('UPDATE mayfly.tenures SET beat = 7 WHERE tenure = $1', [tenure()]);
    await prove();
    expect(holder().beat).toBe(8);
  });
});

describe('who holds a target', () => {
  let hold: MockInstance<NonNullable<Session['hold']>>;
  const looks = () => hold.mock.calls.length;
  beforeEach(() => {
    hold = vi.spyOn(session, 'hold');
  });

  test('is asked once by many at the same time, and believed for a while', async () => {
    await Promise.all([prove(), prove(), prove()]);
    const asked = looks();
    // To look, to begin, and to write its first beat.
    expect(asked).toBe(3);
    vi.advanceTimersByTime(SILENCE - 1);
    await prove();
    expect(looks()).toBe(asked);
    vi.advanceTimersByTime(1);
    await prove();
    expect(looks()).toBe(asked + 2);
  });

  test('goes on where the target or the store does not answer, since nothing speaks against it', async () => {
    await prove();
    vi.advanceTimersByTime(SILENCE);
    hold.mockRejectedValueOnce(new Error('away'));
    await prove();
    expect(strangers()).toEqual([false]);
  });

  test('is not known before the target has answered', async () => {
    hold.mockRejectedValueOnce(new Error('away'));
    await expect(prove()).rejects.toThrow('away');
    await prove();
  });

  test('writes no beat before its time', async () => {
    ownership = create({ beatSeconds: 60 });
    await prove();
    expect(holder().beat).toBe(1);
    expect(await stored()).toMatchObject([{ beat: 1 }]);
    expect(strangers()).toEqual([false]);
    await house.onStore(
      `UPDATE mayfly.tenures SET beat_at = clock_timestamp() - interval '29 seconds' WHERE target = $1`,
      [target.name],
    );
    vi.advanceTimersByTime(SILENCE);
    await prove();
    expect(holder().beat).toBe(1);
    await house.onStore(
      `UPDATE mayfly.tenures SET beat_at = clock_timestamp() - interval '31 seconds' WHERE target = $1`,
      [target.name],
    );
    vi.advanceTimersByTime(SILENCE);
    await prove();
    expect(holder().beat).toBe(2);
  });

  test('knows its own beat where a store that failed over has forgotten it', async () => {
    await prove();
    await house.onStore('UPDATE mayfly.tenures SET beat = 1 WHERE target = $1', [target.name]);
    vi.advanceTimersByTime(SILENCE);
    await prove();
    expect(holder().beat).toBe(3);
    expect(house.logs).toMatchObject([{ event: { alert: 'failed_over' } }]);
  });

  test('goes on where that store has forgotten the tenure itself, and lets it know it again', async () => {
    await prove();
    await house.onStore('DELETE FROM mayfly.tenures WHERE target = $1', [target.name]);
    vi.advanceTimersByTime(SILENCE);
    await prove();
    expect(strangers()).toEqual([false, false]);
    expect(holder().beat).toBe(3);
    expect(await stored()).toMatchObject([{ beat: 3, lost: false }]);
    await create().prove(target.name, session);
  });
});

describe('another that writes where we have held for long', () => {
  const contested = () => house.logs.filter(({ event }) => event['alert'] === 'contested');
  /** Looks at what the other wrote since. */
  async function meanwhile(beat: number): Promise<void> {
    write(holder().tenure ?? '', beat);
    vi.advanceTimersByTime(SILENCE);
    await prove();
  }

  test('is spoken against, with a higher beat', async () => {
    await prove();
    await meanwhile(10);
    expect(contested()).toEqual([
      {
        event: { target: target.name, alert: 'contested' },
        message: 'another broker of this installation writes to the target',
      },
    ]);
    expect(holder().beat).toBe(11);
    expect(strangers()).toEqual([false, false]);
  });

  test('is told once as what the store has forgotten, also where the target does not take the higher beat', async () => {
    await prove();
    const honest = session.hold?.bind(session);
    const hold = vi.spyOn(session, 'hold').mockImplementation(async (signal, beat) => {
      if (beat !== undefined) throw new Error('away');
      return (await honest?.(signal)) ?? null;
    });
    const told = () => house.logs.filter(({ event }) => event['alert'] === 'failed_over');
    await meanwhile(10);
    expect(told()).toHaveLength(1);
    expect(await stored()).toMatchObject([{ beat: 11 }]);
    hold.mockRestore();
    vi.advanceTimersByTime(SILENCE);
    await prove();
    expect(told()).toHaveLength(1);
  });

  test('is spoken against three times in a row, and then waited for', async () => {
    await prove();
    vi.advanceTimersByTime(SILENCE);
    for (let beat = 10; beat <= 30; beat += 10) {
      write(holder().tenure ?? '', beat);
      await look();
      expect(holder().beat).toBe(beat + 1);
    }
    write(holder().tenure ?? '', 40);
    await look();
    expect(contested()).toHaveLength(3);
    expect(holder().beat).toBe(40);
    await expect(prove()).rejects.toMatchObject({ errorClass: 'retryable' });
  });

  test('is spoken against again when it has been quiet in between', async () => {
    await prove();
    for (let beat = 10; beat <= 50; beat += 10) {
      vi.advanceTimersByTime(1);
      await meanwhile(beat);
    }
    expect(contested()).toHaveLength(5);
    expect(holder().beat).toBe(51);
  });

  test('is waited for by who has not held it for long', async () => {
    await prove();
    vi.advanceTimersByTime(SILENCE - 1_000);
    write(holder().tenure ?? '', 10);
    await look();
    expect(contested()).toEqual([]);
    expect(holder().beat).toBe(10);
  });

  /** One more look, as by the beat. */
  async function look(): Promise<void> {
    ownership.start(() => [[target.name, session]]);
    await ownership.stop();
  }
});

describe('the beat', () => {
  let hold: MockInstance<NonNullable<Session['hold']>>;
  let asked: MockInstance<typeof house.db.query>;
  const looks = () => hold.mock.calls.length;
  beforeEach(() => {
    hold = vi.spyOn(session, 'hold');
    asked = vi.spyOn(house.db, 'query');
  });

  test('looks at once, and then twice in the time of a beat, until it is stopped', async () => {
    ownership = create({ beatSeconds: 10 });
    ownership.start(() => [[target.name, session]]);
    await ownership.stop();
    expect(strangers()).toEqual([false]);
    ownership.start(() => [[target.name, session]]);
    const first = looks();
    vi.advanceTimersByTime(4_999);
    expect(looks()).toBe(first);
    await settle();
    vi.advanceTimersByTime(1);
    expect(looks()).toBe(first + 1);
    await ownership.stop();
    vi.advanceTimersByTime(60_000);
    expect(looks()).toBe(first + 1);
  });

  test('ends what is on its way before it is stopped', async () => {
    let go: (value: null) => void = () => {};
    hold.mockReturnValue(new Promise((resolve) => (go = resolve)));
    ownership.start(() => [[target.name, session]]);
    let ended = false;
    const stopping = ownership.stop().then(() => (ended = true));
    await settle();
    expect(ended).toBe(false);
    go(null);
    await stopping;
  });

  test('goes on where a target can not be opened or does not answer, and the log says so', async () => {
    ownership.start(() => {
      throw new Error('no catalog');
    });
    expect(house.logs).toMatchObject([
      { event: { error: { message: 'no catalog' } }, message: 'a target can not be opened' },
    ]);
    await ownership.stop();
    hold.mockRejectedValueOnce(new Error('away'));
    const other = house.target();
    ownership.start(() => [
      ['bare', bareSession(session)],
      [target.name, session],
      [other.name, other.session],
    ]);
    await ownership.stop();
    await settle();
    expect(house.logs.slice(1)).toMatchObject([
      {
        event: { target: target.name, error: { message: 'away' } },
        message: 'who holds the target can not be seen now',
      },
    ]);
    expect(house.observed).toEqual([['stranger', other.name, false]]);
  });

  /** What was begun has all its answers from the store. */
  async function settle(): Promise<void> {
    const isAnswered = () => asked.mock.settledResults.every(({ type }) => type !== 'incomplete');
    for (let answered = 0; answered < 3; answered = isAnswered() ? answered + 1 : 0) await house.onStore('SELECT 1');
  }
});

describe('a guarded session', () => {
  test('is the same one each time, and refuses to change what is not ours', async () => {
    const guarded = ownership.guard(target.name, session);
    expect(guarded).not.toBe(session);
    expect(ownership.guard(target.name, session)).toBe(guarded);
    write(randomUUID(), 1, 'store-2');
    await expect(guarded.fence([], AbortSignal.timeout(1_000))).rejects.toBeInstanceOf(Stranger);
    expect(target.synthetic.count('fence')).toBe(0);
    await expect(ownership.prove(target.name, guarded)).rejects.toBeInstanceOf(Stranger);
    expect(await guarded.verify([], AbortSignal.timeout(1_000))).toEqual([]);
  });

  test('is proven by what it stands before', async () => {
    const guarded = ownership.guard(target.name, session);
    const hold = vi.spyOn(session, 'hold');
    await ownership.prove(target.name, guarded);
    await prove();
    expect(hold.mock.calls).toHaveLength(3);
    expect(await guarded.fence([], AbortSignal.timeout(1_000))).toEqual([]);
  });
});
