import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Secret } from '../../src/domain/secret.ts';
import { ProviderError } from '../../src/provider.ts';
import { endBatch } from '../../src/revocation/end-batch.ts';
import { Database } from '../../src/store/database.ts';
import { leaveWriter, takeWriter } from '../../src/store/fence-writers.ts';
import { type EngineHouse, type EngineTarget, startEngineHouse, only } from '../support/engine.ts';
import { badHandle } from '../support/synthetic/faults.ts';
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

describe('what an earlier claim has contained', () => {
  async function containedBefore(count: number) {
    const { born, claim } = await target.claimed(count);
    await endBatch(house.deps, claim);
    house.observed.splice(0);
    house.changed.splice(0);
    return { born, claim: await target.claimAgain(born) };
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

test('what ends by itself before anything could be done is looked at then, and is no failure', async () => {
  const { born, claim } = await target.claimed(2);
  const [soon, other] = [only(born), only(born.slice(1))];
  const notBefore = new Date(Date.now() + 30_000);
  target.synthetic.faults.set('fence', badHandle(soon.handle, { ok: true, evidence: {}, notBefore }));
  const { contained } = await endBatch(house.deps, claim);
  expect(contained.map(({ item }) => item.handle)).toEqual([other.handle]);
  const standing = await house.standing(soon);
  expect(standing).toMatchObject({ state: 'revoking', revocation: 'due', last_error: null, claimed_by: null });
  expect(standing.seconds_to_try).toBeGreaterThan(20);
  expect(await house.told(soon)).toEqual([]);
  expect(house.observed.filter(([what]) => what !== 'contained')).toEqual([]);
});

describe('a target whose fence is one document', () => {
  beforeEach(() => {
    target = house.target('document');
  });

  test('is written by one worker at a time, with all that lives on, and let go of afterwards', async () => {
    const alive = await target.bear(2);
    const { born, claim } = await target.claimed(1);
    const { contained } = await endBatch(house.deps, claim);
    expect(contained).toHaveLength(1);
    const [document] = target.synthetic.system.documents();
    expect(document?.live.toSorted()).toEqual(alive.map(({ handle }) => handle).sort());
    expect(Object.keys(document?.denied ?? {})).toEqual([only(born).handle]);
    expect(await house.standing(only(born))).toMatchObject({ claimed_by: 'worker-1' });
    expect(house.logs).toEqual([]);
  });

  test('is not written before the writer at work is done', async () => {
    const first = await target.claimed(1);
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

  test('has writers with ever larger numbers, also once the store was set back', async () => {
    const { claim } = await target.claimed(1);
    const { db, worker } = house.deps;
    const number = async () => {
      const taken = await takeWriter(db, target.name, worker, claim.items);
      await leaveWriter(db, worker, claim.items);
      return taken?.number ?? 0n;
    };
    const before = await number();
    const [sequence] = await house.onStore<{ last: string }>('SELECT last_value AS last FROM mayfly.claim_numbers');
    await house.onStore('ALTER SEQUENCE mayfly.claim_numbers RESTART WITH 1');
    try {
      expect(await number()).toBeGreaterThan(before);
      await house.onStore(`ALTER SEQUENCE mayfly.claim_numbers RESTART WITH ${before + 1_000_000_000_000n}`);
      expect(await number()).toBe(before + 1_000_000_000_000n);
    } finally {
      await house.onStore(`ALTER SEQUENCE mayfly.claim_numbers RESTART WITH ${BigInt(sequence?.last ?? 1) + 10n}`);
    }
  });

  test('is let go with its claim where the store went away meanwhile', async () => {
    const url = new URL(house.storeUrl.reveal());
    const proxy = await startTcpProxy(Number(url.port));
    url.port = String(proxy.port);
    const db = new Database({ url: new Secret(url.href), connections: 1, onError: () => {} });
    const { claim } = await target.claimed(1);
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
    const first = await target.claimed(1);
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
