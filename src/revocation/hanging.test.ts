import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { TargetDefinition } from '../catalog/types.ts';
import { randomIds } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import { type Outcome, ProviderError, type Session } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import { Database, type Statement } from '../store/database.ts';
import type { RevocationDeps } from './deps.ts';
import { endBatch } from './end-batch.ts';
import { OutageFencer } from './outage-fencer.ts';

const TARGET = 'ledger-db';
const AT = new Date('2026-01-01T00:00:00Z');
const forEver = () => new Promise<never>(() => {});
const unasked = () => Promise.reject(new Error('not asked for here'));

/** Keeps every transaction for ever, and the statements of these names. */
class HangingDatabase extends Database {
  readonly asked: (string | undefined)[] = [];
  transactions = 0;
  hangs: readonly string[] = [];

  override async query<R extends Record<string, unknown>>({ name }: Statement): Promise<R[]> {
    this.asked.push(name);
    return name !== undefined && this.hangs.includes(name) ? await forEver() : [];
  }

  override transaction(): Promise<never> {
    this.transactions += 1;
    return forEver();
  }
}

let db: HangingDatabase;
let unclaimed: (readonly [string, number])[];
beforeEach(() => {
  vi.useFakeTimers();
  db = new HangingDatabase({
    url: new Secret('postgres://nobody@127.0.0.1:1/none'),
    connections: 1,
    onError: () => {},
  });
  unclaimed = [];
});
afterEach(() => vi.useRealTimers());

function depsOf(fenced: Outcome): RevocationDeps {
  const target: TargetDefinition = {
    ...{ name: TARGET, provider: 'paper', connection: {}, environment: 'test', owner: 'nobody' },
    ...{ sensitivity: 'internal', labels: {} },
  };
  const session: Session = {
    ...{ guarantee: unasked, reserve: () => '', mint: unasked, reap: unasked, check: unasked, close: async () => {} },
    fence: async (refs) => refs.map(() => fenced),
    verify: async (refs) => refs.map(() => ({ ok: true, contained: true, clean: true, evidence: {} })),
  };
  return {
    db,
    targetAt: async () => target,
    session: () => session,
    unclaimed: (...told) => unclaimed.push(told),
    policyDigest: () => 'none',
    observer: {
      ...{ contained: () => {}, notSeen: () => {}, failed: () => {}, returned: () => {}, fencedUnrecorded: () => {} },
      ...{ overdue: () => {}, breaker: () => {} },
    },
    ...{ worker: 'worker', random: () => 0, log: () => {} },
  };
}

function itemOf(): Claimed {
  return {
    ...{ id: randomIds.next('rev'), grantId: randomIds.next('grt'), taskId: randomIds.next('task') },
    ...{ agent: 'dev:agent-recon', subject: 'user:dana', txn: null, entitlement: 'ledger-db/read-invoices' },
    ...{ handle: 'mfy_1', facts: { oid: 1 }, deadline: AT, decidedRevision: 1, guarantee: 'immediate' },
    ...{ endedBy: 'expired', dueAt: AT, attempts: 1, contained: false, claimNumber: 7n },
  };
}

test.each([
  ['what was contained', 'mark_contained', { ok: true, evidence: {} }],
  ['what failed', 'mark_failed', { ok: false, error: new ProviderError('denied', 'refused') }],
] as const)('while the store keeps the record of %s, nothing can be claimed there', async (_, statement, fenced) => {
  db.hangs = [statement];
  void endBatch(depsOf(fenced), { target: TARGET, number: 7n, at: AT, atHere: 0, items: [itemOf()] });
  await vi.advanceTimersByTimeAsync(1_000);
  expect([db.asked.at(-1), unclaimed]).toEqual([statement, []]);
  await vi.advanceTimersByTimeAsync(3_000);
  // Until it would be told again, and a while: a write that was only slow is over.
  expect(unclaimed).toEqual([
    [TARGET, 3_000],
    [TARGET, 3_000],
  ]);
});

/** What comes of a grant past its deadline that a process remembers, while the store answers nothing but what lives. */
async function outlives(held: readonly string[]): Promise<void> {
  vi.spyOn(db, 'query').mockImplementation(async ({ name }) =>
    name === 'find_living_grants' ? [{ now: AT, held, id: null }] : await forEver(),
  );
  const fencer = new OutageFencer(depsOf({ ok: true, evidence: {} }));
  const { grantId: id, handle, facts } = itemOf();
  fencer.start();
  await vi.advanceTimersByTimeAsync(600);
  fencer.remember({ id, target: TARGET, handle, facts, deadline: AT, decidedRevision: 1 });
  await vi.advanceTimersByTimeAsync(8_000);
}

test('what was cut without a store whose commits hang is on its way to be told only once', async () => {
  await outlives([]);
  expect(db.transactions).toBe(1);
});

test('nothing is cut without the store where it said last that deadlines are held', async () => {
  await outlives([TARGET]);
  expect(db.transactions).toBe(0);
});
