import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { ProviderError } from '../../src/provider.ts';
import { endBatch } from '../../src/revocation/end-batch.ts';
import { type Born, type EngineHouse, type EngineTarget, startEngineHouse, only, seconds } from '../support/engine.ts';
import { answers, badHandle, hangs, lies, refuses } from '../support/synthetic/faults.ts';

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

describe('a batch on a target that is well', () => {
  test('is contained in one call to fence and one to verify, with what was seen', async () => {
    const { born, claim } = await target.claimed(3);
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
        ...{ claimed_by: 'worker-1', seconds_held: seconds(0, 15), seconds_to_try: seconds(0, 15) },
      });
      expect(await house.told(one)).toEqual([
        {
          type: 'revocation.contained',
          correlation_id: `worker-1#${claim.number}`,
          cause: 'completed',
          payload: {
            ...{ target: target.name, handle: one.handle, revocation_id: `rev_${one.revocationId}` },
            ...{ evidence, late_seconds: seconds(0, 60), attempts: 1 },
          },
        },
      ]);
    }
    expect(house.observed).toEqual(born.map(() => ['contained', target.name, 'completed', seconds(0, 60)]));
    expect(new Set(house.changed)).toEqual(new Set(born.map(({ taskId }) => taskId)));
    expect(house.logs).toEqual([]);
  });

  test('that was ended ahead of its time is not late', async () => {
    const { claim } = await target.claimed(1, { owed: 60 });
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
    const { born, claim } = await target.claimed(1, { guarantee: 'irrevocable' });
    await endBatch(house.deps, claim);
    const residual = 'value may be known';
    expect((await house.standing(only(born))).evidence).toMatchObject({ residual, seen: 'refused' });
    expect(only(await house.told(only(born))).payload).toMatchObject({ residual, evidence: { residual } });
  });

  test('that is gone already is contained where the target shows it', async () => {
    const gone = { ok: false, error: new ProviderError('gone', 'There is none.') };
    const { born, claim } = await target.claimed(2);
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
    const { born, claim } = await target.claimed(1);
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 1, silent: 0 });
    const says = 'the target does not look contained yet';
    expect(await house.standing(only(born))).toMatchObject({
      ...{
        state: 'revoking',
        revocation: 'due',
        attempts: 1,
        last_error: 'retryable',
        // A quarter of a second, less what has passed since.
        seconds_to_try: seconds(-60, 0.25),
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
    const { born, claim } = await target.claimed(2);
    const [bad, good] = [only(born), only(born.slice(1))];
    target.synthetic.faults.set('verify', badHandle(bad.handle, instead));
    expect(await endBatch(house.deps, claim)).toMatchObject({ asked: 2, silent: 0 });
    expect(await house.standing(bad)).toMatchObject({ revocation: 'due', last_error: 'misconfigured' });
    expect(only(await house.told(bad)).payload).toMatchObject({ says: 'the provider did not say what became of it' });
    expect(await house.standing(good)).toMatchObject({ revocation: 'contained' });
  });

  test('for which verify says only something like yes is not contained', async () => {
    const { born, claim } = await target.claimed(1);
    const yes = { ok: true, contained: 'yes', clean: true, evidence: {} };
    target.synthetic.faults.set('verify', badHandle(only(born).handle, yes));
    await endBatch(house.deps, claim);
    expect(await house.standing(only(born))).toMatchObject({ revocation: 'due', last_error: 'retryable' });
  });

  test('for which verify was refused bears the class of that', async () => {
    const { born, claim } = await target.claimed(1);
    const error = new ProviderError('denied', 'May not look.', { wholeTarget: true });
    target.synthetic.faults.set('verify', badHandle(only(born).handle, { ok: false, error }));
    // It spoke of the target as a whole.
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 1, silent: 1 });
    expect(only(await house.told(only(born))).payload).toMatchObject({ error_class: 'denied', says: 'May not look.' });
  });

  test('for which fence answers nothing at all is a defect of its provider', async () => {
    const { born, claim } = await target.claimed(2);
    target.synthetic.faults.set('fence', badHandle(only(born).handle, undefined));
    await endBatch(house.deps, claim);
    expect(await house.standing(only(born))).toMatchObject({ last_error: 'misconfigured' });
    expect(await house.standing(only(born.slice(1)))).toMatchObject({ revocation: 'contained' });
  });

  test('since the target serves nobody is silence, of which the log tells once', async () => {
    const { born, claim } = await target.claimed(2);
    target.synthetic.faults.set('fence', refuses('denied', 'no such login'));
    expect(await endBatch(house.deps, claim)).toEqual({ contained: [], asked: 2, silent: 2 });
    for (const one of born) expect(await house.standing(one)).toMatchObject({ last_error: 'denied' });
    expect(house.logs[0]).toMatchObject({
      event: { target: target.name, claim: String(claim.number), error: { message: 'no such login' } },
      message: 'a batch of revocations failed',
    });
  });

  test('since nobody knows how to open the target says so, and what a provider says of that is kept', async () => {
    const { born, claim } = await target.claimed(1);
    const broken = { ...house.deps, targetAt: async () => await Promise.reject(new Error('secret')) };
    await endBatch(broken, claim);
    const says = `Target ${target.name} can not be opened.`;
    expect(only(await house.told(only(born))).payload).toMatchObject({ error_class: 'misconfigured', says });

    const refused = {
      ...house.deps,
      targetAt: async () => await Promise.reject(new ProviderError('denied', 'Not now.')),
    };
    await endBatch(refused, await target.claimAgain(born));
    expect((await house.told(only(born))).at(-1)?.payload).toMatchObject({ error_class: 'denied', says: 'Not now.' });
  });

  test('since its target can only let it expire waits for that, which is no failure', async () => {
    target = house.target('expiry-only');
    const { born, claim } = await target.claimed(1, { guarantee: 'expiry-only', seconds: 60, owed: 65 });
    await endBatch(house.deps, claim);
    const standing = await house.standing(only(born));
    expect(standing).toMatchObject({ revocation: 'due', last_error: null, seconds_to_try: seconds(30, 65) });
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
    const { born, claim } = await target.claimed(1, { guarantee: 'expiry-only', seconds: 60, owed: 65 });
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
    const { born, claim } = await target.claimed(1);
    await takeOver(born);
    expect(await endBatch(house.deps, claim)).toMatchObject({ contained: [], asked: 1, silent: 0 });
    expect(await house.standing(only(born))).toMatchObject({ state: 'revoking', revocation: 'running' });
    expect(await house.told(only(born))).toEqual([]);
    expect(house.observed).toEqual([]);
    expect(house.changed).toEqual([]);
  });

  test('counts no failure either', async () => {
    const { born, claim } = await target.claimed(1);
    await takeOver(born);
    target.synthetic.faults.set('fence', lies);
    await endBatch(house.deps, claim);
    expect(house.observed).toEqual([['notSeen', target.name, 1]]);
    expect(await house.told(only(born))).toEqual([]);
  });

  test('calls off what hangs, which says nothing of the target', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    target.synthetic.faults.set('fence', hangs);
    const { born, claim } = await target.claimed(1);
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
    const { born, claim } = await target.claimed(1);
    const held = target.synthetic.holds.hold('fence.sent');
    const ending = endBatch(house.deps, claim);
    await held.reached;
    await house.onStore(`UPDATE mayfly.revocations SET claimed_until = clock_timestamp() WHERE grant_id = $1`, [
      only(born).id,
    ]);
    vi.advanceTimersByTime(1_500);
    await vi.waitFor(async () =>
      expect(await house.standing(only(born))).toMatchObject({ seconds_held: seconds(0, 5) }),
    );
    held.release();
    expect((await ending).contained).toHaveLength(1);
  });
});

test('answers in another order than asked for are taken for nobody', async () => {
  const { born, claim } = await target.claimed(2);
  target.synthetic.faults.set(
    'verify',
    answers((honest) => honest.toReversed()),
  );
  await endBatch(house.deps, claim);
  for (const one of born) expect(await house.standing(one)).toMatchObject({ state: 'revoked' });
});
