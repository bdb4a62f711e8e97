import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { randomIds } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import type { Ref, Session } from '../provider.ts';
import type { Claim, Claimed } from '../store/claims.ts';
import { Database } from '../store/database.ts';
import { Cleaner } from './cleaner.ts';
import type { RevocationDeps } from './deps.ts';
import { endBatch } from './end-batch.ts';

const AT = new Date('2026-01-01T00:00:00Z');
const SLOW_MILLIS = 10_000;
const unasked = () => Promise.reject(new Error('not asked for here'));

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function itemOf(handle: string, more: Partial<Claimed> = {}): Claimed {
  return {
    ...{ id: randomIds.next('rev'), grantId: randomIds.next('grt'), taskId: randomIds.next('task') },
    ...{ agent: 'dev:agent-recon', subject: 'user:dana', txn: null, entitlement: 'ledger-db/read-invoices' },
    ...{ handle, facts: { oid: 1 }, deadline: AT, decidedRevision: 1, guarantee: 'immediate' },
    ...{ endedBy: 'expired', dueAt: AT, attempts: 1, contained: false, claimNumber: 7n, ...more },
  };
}

/** A batch of these is ended and cleaned on a session that is slow with what lost its facts. */
function stage(items: readonly Claimed[]) {
  const claim: Claim = { target: 'ledger-db', number: 7n, at: AT, atHere: performance.now(), items };
  const db = new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} });
  vi.spyOn(db, 'query').mockImplementation(async ({ name }) =>
    items.map(({ id, grantId }) => ({ id: name === 'find_grants_under' ? grantId : id, held: items.length })),
  );
  const reaped: string[] = [];
  const session: Session = {
    ...{ guarantee: unasked, reserve: () => '', mint: unasked, check: unasked, close: async () => {} },
    fence: async (refs) => {
      if (refs.some(({ facts }) => facts === null)) await new Promise((done) => setTimeout(done, SLOW_MILLIS));
      return refs.map(() => ({ ok: true, evidence: {} }));
    },
    verify: async (refs) => refs.map(() => ({ ok: true, contained: true, clean: true, evidence: {} })),
    reap: async (refs: readonly Ref[]) => {
      reaped.push(...refs.map(({ handle }) => handle));
      return refs.map(() => ({ ok: true, evidence: {} }));
    },
  };
  const deps: RevocationDeps = {
    ...{ db, policyDigest: () => 'none', unclaimed: () => {}, worker: 'worker', random: () => 0, log: () => {} },
    targetAt: async () => ({
      ...{ name: 'ledger-db', provider: 'paper', connection: {}, environment: 'test', owner: 'nobody' },
      ...{ sensitivity: 'internal', labels: {} },
    }),
    session: () => session,
    observer: {
      ...{ contained: () => {}, notSeen: () => {}, failed: () => {}, returned: () => {}, fencedUnrecorded: () => {} },
      ...{ overdue: () => {}, breaker: () => {} },
    },
  };
  return { claim, deps, reaped, cleaner: new Cleaner(deps, 'ledger-db', () => {}) };
}

test('what is contained waits to be cleaned no longer than its claim holds, however long its batch took', async () => {
  const items = [itemOf('fresh'), itemOf('earlier', { contained: true }), itemOf('slow', { facts: null })];
  const { claim, deps, reaped, cleaner } = stage(items);
  const began = performance.now();
  const batch = endBatch(deps, claim);
  await vi.advanceTimersByTimeAsync(SLOW_MILLIS);
  const { contained } = await batch;
  expect(contained.map(({ item, heldUntil }) => [item.handle, heldUntil - began])).toEqual([
    ['fresh', 15_000],
    ['earlier', 3_500],
    ['slow', SLOW_MILLIS + 15_000],
  ]);
  await vi.advanceTimersByTimeAsync(5_000);
  cleaner.add(claim, contained);
  await cleaner.idle();
  expect(reaped).toEqual(['slow']);
});

describe('while more is open than what is in hand', () => {
  test('what is contained waits until it is not, or as long as its claim leaves time for cleaning', async () => {
    const { claim, deps, reaped, cleaner } = stage([itemOf('one')]);
    const { contained } = await endBatch(deps, claim);
    cleaner.behind(true);
    cleaner.add(claim, contained);
    await vi.advanceTimersByTimeAsync(9_999);
    expect(reaped).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(reaped).toEqual(['one']);
  });

  test('it is cleaned as soon as that is over, and when the worker stops', async () => {
    for (const over of ['behind', 'idle'] as const) {
      const { claim, deps, reaped, cleaner } = stage([itemOf('one')]);
      const { contained } = await endBatch(deps, claim);
      cleaner.behind(true);
      cleaner.add(claim, contained);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(reaped).toEqual([]);
      if (over === 'idle') await cleaner.idle();
      else cleaner.behind(false);
      await vi.advanceTimersByTimeAsync(0);
      expect(reaped).toEqual(['one']);
    }
  });
});
