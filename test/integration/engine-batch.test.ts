import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { ProviderError } from '../../src/provider.ts';
import { endBatch } from '../../src/revocation/end-batch.ts';
import type { Claim } from '../../src/store/claims.ts';
import { Database } from '../../src/store/database.ts';
import {
  type BirthOptions,
  type Born,
  type EngineHouse,
  type EngineTarget,
  startEngineHouse,
  bareSession,
  only,
  seconds,
} from '../support/engine.ts';
import { answers, badHandle, hangs, lies, refuses } from '../support/synthetic/faults.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';

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
afterEach(() => {
  vi.useRealTimers();
});

/** Some that have ended, in the hands of a worker. */
async function claimed(count: number, options: BirthOptions & { of?: EngineTarget; owed?: number } = {}) {
  const { of = target, owed = 0, ...birth } = options;
  const born = await of.bear(count, birth);
  await of.end(born, owed);
  return { born, claim: await of.claim() };
}

async function claimAgain(born: readonly Born[]): Promise<Claim> {
  await house.onStore(
    `UPDATE mayfly.revocations SET try_at = clock_timestamp(), claimed_until = clock_timestamp() WHERE grant_id = ANY($1)`,
    [born.map(({ id }) => id)],
  );
  return await target.claim();
}

describe('a batch on a target that is well', () => {
  test('is contained in one call to fence and one to verify, with what was seen', async () => {
    const { born, claim } = await claimed(3);
    const outcome = await endBatch(house.deps, claim);
    expect(outcome).toMatchObject({ asked: 3, silent: 0 });
    expect(outcome.contained.map(({ item }) => item.handle).sort()).toEqual(born.map(({ handle }) => handle).sort());
    expect(outcome.contained.map(({ session }) => session)).toEqual([target.session, target.session, target.session]);
    expect(target.synthetic.calls.map(({ operation }) => operation).slice(3)).toEqual(['fence', 'verify']);
    const evidence = { cut: true, incarnation: target.synthetic.system.incarnation, seen: 'refused' };
    for (const one of born) {
      expect(target.synthetic.system.accepts(one.handle)).toBe(false);
      expect(await house.standing(one)).toMatchObject({
        ...{ state: 'revoked', revocation: 'contained', attempts: 1, last_error: null, evidence },
        // It stays ours while it waits to be cleaned.
        ...{ claimed_by: 'worker-1', seconds_held: seconds(10, 15), seconds_to_try: seconds(10, 15) },
      });
      expect(await house.told(one)).toEqual([
        {
          type: 'revocation.contained',
          correlation_id: `worker-1#${claim.number}`,
          cause: 'completed',
          payload: {
            ...{ target: target.name, handle: one.handle, revocation_id: `rev_${one.revocationId}` },
            ...{ evidence, late_seconds: seconds(0, 5), attempts: 1 },
          },
        },
      ]);
    }
    expect(house.observed).toEqual(born.map(() => ['contained', target.name, 'completed', seconds(0, 5)]));
    expect(new Set(house.changed)).toEqual(new Set(born.map(({ taskId }) => taskId)));
    expect(house.logs).toEqual([]);
  });

  test('that was ended ahead of its time is not late', async () => {
    const { claim } = await claimed(1, { owed: 60 });
    await endBatch(house.deps, claim);
    expect(house.observed).toEqual([['contained', target.name, 'completed', 0]]);
  });

  test('of which one bears no facts is asked for in two parts, since those may have to go elsewhere', async () => {
    const lost = await target.bear(1, { lost: true });
    const known = await target.bear(2);
    await target.end([...lost, ...known]);
    const outcome = await endBatch(house.deps, await target.claim());
    expect(outcome).toMatchObject({ asked: 3, silent: 0 });
    expect(outcome.contained).toHaveLength(3);
    expect(house.logs).toEqual([]);
    const fences = target.synthetic.calls.filter(({ operation }) => operation === 'fence');
    expect(fences.map(({ handles }) => handles.length).toSorted((a, b) => a - b)).toEqual([1, 2]);
  });

  test('whose value may be known for ever says so', async () => {
    target = house.target('irrevocable');
    const { born, claim } = await claimed(1, { guarantee: 'irrevocable' });
    await endBatch(house.deps, claim);
    const residual = 'value may be known';
    expect((await house.standing(only(born))).evidence).toMatchObject({ residual, seen: 'refused' });
    expect(only(await house.told(only(born))).payload).toMatchObject({ residual, evidence: { residual } });
  });

  test('that is gone already is contained where the target shows it', async () => {
    const gone = { ok: false, error: new ProviderError('gone', 'There is none.') };
    const { born, claim } = await claimed(2);
    const [one, other] = [only(born), only(born.slice(1))];
    target.synthetic.system.cut(one.handle);
    target.synthetic.faults.set('fence', { answer: async ({ refs }) => refs.map(() => gone) });
    await endBatch(house.deps, claim);
    expect(await house.standing(one)).toMatchObject({ revocation: 'contained', evidence: { already_gone: true } });
    expect(await house.standing(other)).toMatchObject({ revocation: 'due', last_error: 'retryable' });
    expect(house.observed).toContainEqual(['notSeen', target.name, 1]);
  });
});

describe('what does not go through', () => {
  test('is never contained by what the fence said, and is tried again soon', async () => {
    target.synthetic.faults.set('fence', lies);
    const { born, claim } = await claimed(1);
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 1, silent: 0 });
    const says = 'the target does not look contained yet';
    expect(await house.standing(only(born))).toMatchObject({
      ...{
        state: 'revoking',
        revocation: 'due',
        attempts: 1,
        last_error: 'retryable',
        seconds_to_try: seconds(0, 0.25),
      },
      ...{ claimed_by: null },
    });
    expect(await house.told(only(born))).toMatchObject([
      {
        type: 'revocation.attempted',
        payload: { outcome: 'failed', error_class: 'retryable', says, attempts: 1, contained: false },
      },
    ]);
    expect(house.observed).toEqual([
      ['notSeen', target.name, 1],
      ['failed', target.name, 'retryable'],
    ]);
    expect(house.changed).toEqual(born.map(({ taskId }) => taskId));
    expect(house.logs.map(({ event }) => event)).toEqual([
      { target: target.name, grant_id: only(born).id, error_class: 'retryable', says, attempts: 1 },
    ]);
  });

  test.each([
    ['nothing', undefined],
    ['null', null],
    ['no evidence', { ok: true, contained: true, clean: true }],
  ])('for which verify answers %s is a defect of its provider, and its neighbour’s is not', async (_, instead) => {
    const { born, claim } = await claimed(2);
    const [bad, good] = [only(born), only(born.slice(1))];
    target.synthetic.faults.set('verify', badHandle(bad.handle, instead));
    expect(await endBatch(house.deps, claim)).toMatchObject({ asked: 2, silent: 0 });
    expect(await house.standing(bad)).toMatchObject({ revocation: 'due', last_error: 'misconfigured' });
    expect(only(await house.told(bad)).payload).toMatchObject({ says: 'the provider did not say what became of it' });
    expect(await house.standing(good)).toMatchObject({ revocation: 'contained' });
  });

  test('for which verify says only something like yes is not contained', async () => {
    const { born, claim } = await claimed(1);
    const yes = { ok: true, contained: 'yes', clean: true, evidence: {} };
    target.synthetic.faults.set('verify', badHandle(only(born).handle, yes));
    await endBatch(house.deps, claim);
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'due', last_error: 'retryable' });
  });

  test('for which verify was refused bears the class of that', async () => {
    const { born, claim } = await claimed(1);
    const error = new ProviderError('denied', 'May not look.', { wholeTarget: true });
    target.synthetic.faults.set('verify', badHandle(only(born).handle, { ok: false, error }));
    // It spoke of the target as a whole.
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 1, silent: 1 });
    expect(only(await house.told(only(born))).payload).toMatchObject({ error_class: 'denied', says: 'May not look.' });
  });

  test('for which fence answers nothing at all is a defect of its provider', async () => {
    const { born, claim } = await claimed(2);
    target.synthetic.faults.set('fence', badHandle(only(born).handle, undefined));
    await endBatch(house.deps, claim);
    expect(await house.standing(only(born))).toMatchObject({ last_error: 'misconfigured' });
    expect(await house.standing(only(born.slice(1)))).toMatchObject({ revocation: 'contained' });
  });

  test('since the target serves nobody is silence, of which the log tells once', async () => {
    const { born, claim } = await claimed(2);
    target.synthetic.faults.set('fence', refuses('denied', 'no such login'));
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 2, silent: 2 });
    for (const one of born) expect(await house.standing(one)).toMatchObject({ last_error: 'denied' });
    expect(house.logs[0]).toMatchObject({
      event: { target: target.name, claim: String(claim.number), error: { message: 'no such login' } },
      message: 'a batch of revocations failed',
    });
  });

  test('since nobody knows how to open the target says so, and what a provider says of that is kept', async () => {
    const { born, claim } = await claimed(1);
    const broken = { ...house.deps, targetAt: async () => await Promise.reject(new Error('secret')) };
    await endBatch(broken, claim);
    const says = `Target ${target.name} can not be opened.`;
    expect(only(await house.told(only(born))).payload).toMatchObject({ error_class: 'misconfigured', says });

    const refused = {
      ...house.deps,
      targetAt: async () => await Promise.reject(new ProviderError('denied', 'Not now.')),
    };
    await endBatch(refused, await claimAgain(born));
    expect((await house.told(only(born))).at(-1)?.payload).toMatchObject({ error_class: 'denied', says: 'Not now.' });
  });

  test('since its target can only let it expire waits for that, which is no failure', async () => {
    target = house.target('expiry-only');
    const { born, claim } = await claimed(1, { guarantee: 'expiry-only', seconds: 60, owed: 65 });
    await endBatch(house.deps, claim);
    const standing = await house.standing(only(born));
    expect(standing).toMatchObject({ revocation: 'due', last_error: null, seconds_to_try: seconds(60, 65) });
    const due = 'SELECT try_at = due_at AS owed FROM mayfly.revocations WHERE id = $1';
    expect(await house.onStore(due, [only(born).revocationId])).toEqual([{ owed: true }]);
    const [event] = await house.told(only(born));
    expect(event).toMatchObject({ type: 'revocation.attempted', payload: { outcome: 'waits', attempts: 1 } });
    expect(event?.payload['says']).toMatch(/^waits for its native expiry at 20\d\d-.*Z$/);
    expect(house.observed).toEqual([]);
    expect(house.logs).toEqual([]);
  });

  test('is told of at its first tries and then more and more seldom, while it waits too', async () => {
    target = house.target('expiry-only');
    const { born, claim } = await claimed(1, { guarantee: 'expiry-only', seconds: 60, owed: 65 });
    await house.onStore('UPDATE mayfly.revocations SET attempts = 4 WHERE grant_id = $1', [only(born).id]);
    const fifth = { ...claim, items: claim.items.map((item) => ({ ...item, attempts: 5 })) };
    await endBatch(house.deps, fifth);
    expect(await house.told(only(born))).toEqual([]);
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'due' });
  });
});

describe('a claim that was lost meanwhile', () => {
  const takeOver = (born: readonly Born[]) =>
    house.onStore(`UPDATE mayfly.revocations SET claim_number = claim_number + 1000 WHERE grant_id = ANY($1)`, [
      born.map(({ id }) => id),
    ]);

  test('records nothing, and nobody is told of what it did', async () => {
    const { born, claim } = await claimed(1);
    await takeOver(born);
    expect(await endBatch(house.deps, claim)).toMatchObject({ contained: [], asked: 1, silent: 0 });
    expect(await house.standing(only(born))).toMatchObject({ state: 'revoking', revocation: 'running' });
    expect(await house.told(only(born))).toEqual([]);
    expect(house.observed).toEqual([]);
    expect(house.changed).toEqual([]);
  });

  test('counts no failure either', async () => {
    const { born, claim } = await claimed(1);
    await takeOver(born);
    target.synthetic.faults.set('fence', lies);
    await endBatch(house.deps, claim);
    expect(house.observed).toEqual([['notSeen', target.name, 1]]);
    expect(await house.told(only(born))).toEqual([]);
  });

  test('calls off what hangs, which says nothing of the target', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    target.synthetic.faults.set('fence', hangs);
    const { born, claim } = await claimed(1);
    const ending = endBatch(house.deps, claim);
    await vi.waitFor(() => expect(target.synthetic.count('fence')).toBe(1));
    await takeOver(born);
    vi.advanceTimersByTime(1_500);
    expect(await ending).toEqual({ contained: [], asked: 0, silent: 0 });
    // Its heart has stopped with it.
    expect(vi.getTimerCount()).toBe(0);
  });

  test('is none while it is kept', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    const { born, claim } = await claimed(1);
    const held = target.synthetic.holds.hold('fence.sent');
    const ending = endBatch(house.deps, claim);
    await held.reached;
    await house.onStore(`UPDATE mayfly.revocations SET claimed_until = clock_timestamp() WHERE grant_id = $1`, [
      only(born).id,
    ]);
    vi.advanceTimersByTime(1_500);
    await vi.waitFor(async () =>
      expect(await house.standing(only(born))).toMatchObject({ seconds_held: seconds(3, 5) }),
    );
    held.release();
    expect((await ending).contained).toHaveLength(1);
  });
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

describe('what an earlier claim has contained', () => {
  async function containedBefore(count: number) {
    const { born, claim } = await claimed(count);
    await endBatch(house.deps, claim);
    house.observed.splice(0);
    house.changed.splice(0);
    return { born, claim: await claimAgain(born) };
  }

  test('and lives again is owed its end once more, loudly', async () => {
    const { born, claim } = await containedBefore(2);
    const [back, still] = [only(born), only(born.slice(1))];
    target.synthetic.system.forgetCut(back.handle);
    const { contained, asked } = await endBatch(house.deps, claim);
    expect(contained.map(({ item }) => item.handle)).toEqual([still.handle]);
    expect(asked).toBe(2);
    expect(await house.standing(back)).toMatchObject({ state: 'revoking', revocation: 'due', attempts: 0 });
    expect((await house.told(back)).at(-1)).toMatchObject({ type: 'revocation.returned', payload: { clean_at: null } });
    expect(house.observed).toEqual([['returned', target.name, 1]]);
    expect(house.changed).toContain(back.taskId);
    const about = { target: target.name, grant_id: back.id, clean_at: null, alert: 'returned' };
    expect(house.logs).toMatchObject([{ event: about }]);
    // Of the other nothing is told anew.
    expect((await house.told(still)).map(({ type }) => type)).toEqual(['revocation.contained']);
    const claimedOnce = await target.claim();
    await endBatch(house.deps, claimedOnce);
    expect(target.synthetic.system.accepts(back.handle)).toBe(false);
  });

  test('and all of it lives again: nothing is left to fence under that claim', async () => {
    const { born, claim } = await containedBefore(1);
    target.synthetic.system.forgetCut(only(born).handle);
    const fences = target.synthetic.count('fence');
    expect(await endBatch(house.deps, claim)).toMatchObject({ contained: [], asked: 1, silent: 0 });
    expect(target.synthetic.count('fence')).toBe(fences);
  });

  test('is looked at first and fenced once more, with nothing new to tell', async () => {
    const { born, claim } = await containedBefore(1);
    const { contained } = await endBatch(house.deps, claim);
    expect(contained.map(({ item }) => item.handle)).toEqual([only(born).handle]);
    expect(target.synthetic.calls.slice(-3).map(({ operation }) => operation)).toEqual(['verify', 'fence', 'verify']);
    expect(house.observed).toEqual([]);
    expect((await house.told(only(born))).map(({ type }) => type)).toEqual(['revocation.contained']);
  });

  test('and says nothing of itself is fenced once more', async () => {
    const { born, claim } = await containedBefore(1);
    let looks = 0;
    target.synthetic.faults.set('verify', {
      answer: async ({ refs, honest }) => {
        looks += 1;
        if (looks === 1) throw new ProviderError('retryable', 'not now', { wholeTarget: true });
        return await honest(refs);
      },
    });
    const { contained } = await endBatch(house.deps, claim);
    expect(contained.map(({ item }) => item.handle)).toEqual([only(born).handle]);
    expect(house.logs).toMatchObject([{ event: { target: target.name, error: { message: 'not now' } } }]);
  });

  test('and is called open by nobody, be it not contained, is not back', async () => {
    const { born, claim } = await containedBefore(1);
    const unsure = { ok: true, contained: false, open: false, clean: false, evidence: {} };
    target.synthetic.faults.set('verify', badHandle(only(born).handle, unsure));
    await endBatch(house.deps, claim);
    expect(await house.standing(only(born))).toMatchObject({ state: 'revoked', revocation: 'contained' });
    expect(house.observed.map(([name]) => name)).toEqual(['notSeen', 'failed']);
  });

  test('fails as what it is, and no expiry is waited for', async () => {
    const { born, claim } = await containedBefore(1);
    await house.onStore(
      `UPDATE mayfly.revocations SET due_at = clock_timestamp() + interval '1 minute' WHERE grant_id = $1`,
      [only(born).id],
    );
    const unsure = { ok: true, contained: false, open: false, clean: false, evidence: {} };
    target.synthetic.faults.set('verify', badHandle(only(born).handle, unsure));
    const later = { ...claim, items: claim.items.map((item) => ({ ...item, dueAt: new Date(Date.now() + 60_000) })) };
    await endBatch(house.deps, later);
    expect((await house.told(only(born))).at(-1)?.payload).toMatchObject({ outcome: 'failed', contained: true });
  });
});

describe('what lost its facts, and is absent', () => {
  async function absent(): Promise<{ one: Born; claim: Claim }> {
    const { born, claim } = await claimed(1, { lost: true, unmade: true });
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
    const { claim } = await claimed(2);
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

describe('a target whose fence is one document', () => {
  beforeEach(() => {
    target = house.target('document');
  });

  test('is written by one worker at a time, with all that lives on, and let go of afterwards', async () => {
    const alive = await target.bear(2);
    const { born, claim } = await claimed(1);
    const { contained } = await endBatch(house.deps, claim);
    expect(contained).toHaveLength(1);
    const [document] = target.synthetic.system.documents();
    expect(document?.live.toSorted()).toEqual(alive.map(({ handle }) => handle).sort());
    expect(Object.keys(document?.denied ?? {})).toEqual([only(born).handle]);
    expect(await house.standing(only(born))).toMatchObject({ claimed_by: 'worker-1' });
    expect(house.logs).toEqual([]);
  });

  test('is not written before the writer at work is done', async () => {
    const first = await claimed(1);
    const held = target.synthetic.holds.hold('document.sent');
    const ending = endBatch(house.deps, first.claim);
    await held.reached;
    const second = await target.bear(1);
    await target.end(second);
    const waiting = endBatch({ ...house.deps, worker: 'worker-2' }, await target.claim('worker-2'));
    await vi.waitFor(async () => expect(await house.standing(only(second))).toMatchObject({ revocation: 'running' }));
    expect(target.synthetic.count('fence')).toBe(1);
    held.release();
    expect((await ending).contained).toHaveLength(1);
    expect((await waiting).contained).toHaveLength(1);
    expect(target.synthetic.writers.most).toBe(1);
    for (const { handle } of [...first.born, ...second]) expect(target.synthetic.system.accepts(handle)).toBe(false);
  });

  test('is let go with its claim where the store went away meanwhile', async () => {
    const url = new URL(house.storeUrl.reveal());
    const proxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const db = new Database({ url: new Secret(url.href), connections: 1, onError: () => {} });
    const { claim } = await claimed(1);
    const held = target.synthetic.holds.hold('fence.done');
    const ending = endBatch({ ...house.deps, db }, claim);
    await held.reached;
    proxy.retarget(1);
    proxy.cut();
    held.release();
    await expect(ending).rejects.toMatchObject({ code: 'store_unavailable' });
    expect(house.logs[0]).toMatchObject({
      event: { target: target.name, error: { code: 'store_unavailable' } },
      message: 'a writer of a fence can not be let go; it ends with its claim',
    });
    await db.close();
    await proxy.close();
  });

  test('whose writer does not end is tried again later', async () => {
    const first = await claimed(1);
    await house.onStore(
      `UPDATE mayfly.revocations SET claimed_by = 'other (writes)', claimed_until = clock_timestamp() + interval '1 hour' WHERE grant_id = $1`,
      [only(first.born).id],
    );
    const born = await target.bear(1);
    await target.end(born);
    vi.useFakeTimers({ toFake: ['performance'] });
    const ending = endBatch(house.deps, await target.claim());
    for (let passed = 0; passed < 16; passed++) {
      vi.advanceTimersByTime(1_000);
      await house.standing(only(born));
    }
    expect(await ending).toEqual({ contained: [], asked: 1, silent: 1 });
    expect(only(await house.told(only(born))).payload).toMatchObject({
      ...{ error_class: 'retryable', says: 'Another writer of the fence does not end.' },
    });
  });
});

test('answers in another order than asked for are taken for nobody', async () => {
  const { born, claim } = await claimed(2);
  target.synthetic.faults.set(
    'verify',
    answers((honest) => honest.toReversed()),
  );
  await endBatch(house.deps, claim);
  for (const one of born) expect(await house.standing(one)).toMatchObject({ state: 'revoked' });
});
