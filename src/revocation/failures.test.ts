import { expect, test, vi } from 'vitest';
import { randomIds } from '../domain/ids.ts';
import { Secret } from '../domain/secret.ts';
import type { Claimed } from '../store/claims.ts';
import { Database, type Statement } from '../store/database.ts';
import type { RevocationDeps } from './deps.ts';
import { ProviderError } from '../provider.ts';
import { awaitsExpiry, failureOf, failureOfAll, recordFailures } from './failures.ts';

const db = new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} });

function depsOf(): RevocationDeps {
  return {
    db,
    targetAt: async () => await Promise.reject(new Error('no target is asked for here')),
    session: () => {
      throw new Error('no session is asked for here');
    },
    policyDigest: () => 'none',
    observer: {
      ...{ contained: () => {}, failed: () => {}, overdue: () => {}, breaker: () => {}, notSeen: () => {} },
      ...{ returned: () => {}, fencedUnrecorded: () => {} },
    },
    unclaimed: () => {},
    worker: 'worker',
    random: () => 0,
    log: () => {},
  };
}

function itemOf(attempts: number): Claimed {
  const at = new Date(0);
  return {
    id: randomIds.next('rev'),
    grantId: randomIds.next('grt'),
    taskId: randomIds.next('task'),
    agent: 'dev:agent-recon',
    subject: 'user:dana',
    txn: null,
    entitlement: 'ledger-db/read-invoices',
    handle: 'mfy_1',
    facts: null,
    deadline: at,
    decidedRevision: 1,
    guarantee: 'immediate',
    endedBy: 'expired',
    dueAt: at,
    attempts,
    contained: false,
    claimNumber: 7n,
  };
}

/** What is sent to the store when the attempt with that number has failed. */
async function sent(attempts: number): Promise<{ event: { type: string } | null; delay: number; class: string }> {
  const query = vi.spyOn(db, 'query').mockReset().mockResolvedValue([]);
  const item = itemOf(attempts);
  const failures = new Map([[item.id, { errorClass: 'retryable', says: 'no answer', silent: true } as const]]);
  await recordFailures(depsOf(), 'ledger-db', [item], failures, () => new Date(0));
  const statement: Statement | undefined = query.mock.calls[0]?.[0];
  return JSON.parse(String(statement?.values[0]))[0];
}

test('the evidence tells of the first four attempts, then of every doubling; the store learns of all', async () => {
  const all = [];
  for (let attempts = 1; attempts <= 70; attempts++) all.push({ attempts, ...(await sent(attempts)) });
  expect(new Set(all.map((each) => each.class))).toEqual(new Set(['retryable']));
  const told = all.filter(({ event }) => event !== null);
  expect(new Set(told.map(({ event }) => event?.type))).toEqual(new Set(['revocation.attempted']));
  expect(told.map(({ attempts }) => attempts)).toEqual([1, 2, 3, 4, 8, 16, 32, 64]);
});

test('what did not fail is not given back, and nothing is asked of the store', async () => {
  const query = vi.spyOn(db, 'query').mockResolvedValue([]);
  await recordFailures(depsOf(), 'ledger-db', [itemOf(1)], new Map(), () => new Date(0));
  expect(query).not.toHaveBeenCalled();
});

test('a failure is counted only while its claim is ours', async () => {
  for (const ours of [true, false]) {
    const item = itemOf(1);
    vi.spyOn(db, 'query')
      .mockReset()
      .mockResolvedValue(ours ? [{ id: item.id }] : []);
    const deps = depsOf();
    const failed = vi.spyOn(deps.observer, 'failed');
    const failures = new Map([[item.id, { errorClass: 'denied', says: 'may not', silent: false } as const]]);
    await recordFailures(deps, 'ledger-db', [item], failures, () => new Date(0));
    expect(failed).toHaveBeenCalledTimes(ours ? 1 : 0);
  }
});

test('of what a provider says its class and its words are kept, as the store can keep them', () => {
  const odd = new ProviderError('denied', 'a\0b\ud800c', { wholeTarget: true });
  expect(failureOf(odd)).toEqual({ errorClass: 'denied', says: 'a\ufffdb\ufffdc', silent: true });
  expect(failureOf(new ProviderError('gone', 'x'.repeat(2_000))).says).toHaveLength(1_000);
  for (const errorClass of ['retryable', 'denied', 'misconfigured', 'gone'] as const)
    expect(failureOf(new ProviderError(errorClass, 'no'))).toEqual({ errorClass, says: 'no', silent: false });
  const unheard = Object.assign(new ProviderError('denied', 'no'), { errorClass: 'odd' });
  expect(failureOf(unheard).errorClass).toBe('retryable');
});

test('of whatever else was thrown only its name is kept', () => {
  expect(failureOf(new TypeError('secret'))).toEqual({ errorClass: 'retryable', says: 'TypeError', silent: false });
  expect(failureOf('secret')).toEqual({ errorClass: 'retryable', says: 'failed', silent: false });
});

test('a target is silent where it let nothing be tried, or did not answer in time', () => {
  expect(failureOfAll(new ProviderError('denied', 'no')).silent).toBe(true);
  expect(failureOfAll(new DOMException('late', 'TimeoutError')).silent).toBe(true);
  expect(failureOfAll(new DOMException('over', 'AbortError')).silent).toBe(false);
  expect(failureOfAll(Object.assign(new Error('late'), { name: 'TimeoutError' })).silent).toBe(false);
});

test('an expiry is waited for while it lies ahead', () => {
  const item = { ...itemOf(1), dueAt: new Date(1_000) };
  expect(awaitsExpiry(item, new Date(999))).toBe(true);
  expect(awaitsExpiry(item, new Date(1_000))).toBe(false);
  expect(awaitsExpiry({ ...item, contained: true }, new Date(0))).toBe(false);
});

test('what waits for its expiry is told of as seldom as what fails', async () => {
  const told = [];
  for (let attempts = 1; attempts <= 9; attempts++) {
    const query = vi.spyOn(db, 'query').mockReset().mockResolvedValue([]);
    const item = { ...itemOf(attempts), dueAt: new Date(60_000) };
    const failures = new Map([
      [item.id, { errorClass: 'retryable', says: 'alive', silent: false, alive: true } as const],
    ]);
    await recordFailures(depsOf(), 'ledger-db', [item], failures, () => new Date(0));
    const [sentOne] = JSON.parse(String(query.mock.calls[0]?.[0].values[0]));
    expect(sentOne).toMatchObject({ class: null, delay: 0 });
    if (sentOne.event !== null) told.push(attempts);
  }
  expect(told).toEqual([1, 2, 3, 4, 8]);
});
