import { expect, test } from 'vitest';
import { type CheckStep, ProviderError, type Session } from '../provider.ts';
import { runCanaries } from './check-target.ts';

const well: CheckStep = { step: 'mint', ok: true, says: 'it was minted' };

function canary(name: string, check: Session['check']) {
  const session: Session = {
    guarantee: () => Promise.reject(new Error('not asked')),
    reserve: (grantId) => grantId,
    mint: () => Promise.reject(new Error('not asked')),
    fence: async () => [],
    verify: async () => [],
    reap: async () => [],
    check,
    close: async () => {},
  };
  return { name, open: () => ({ session, config: {} }) };
}

const never = new AbortController().signal;

test('all canaries run, one after another, each by its entitlement’s name', async () => {
  const order: string[] = [];
  const asked = (name: string) =>
    canary(name, async (entitlement) => {
      order.push(`${entitlement?.name} begins`);
      await new Promise((resolve) => setImmediate(resolve));
      order.push(`${entitlement?.name} ends`);
      return [well];
    });
  expect(await runCanaries([asked('a'), asked('b')], never)).toEqual({
    ok: true,
    says: '0 of 2 steps failed.',
    steps: [
      { entitlement: 'a', ...well },
      { entitlement: 'b', ...well },
    ],
  });
  expect(order).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
});

test('what can not be tried has failed, in the provider’s own words and nobody else’s, and the others are tried', async () => {
  const { ok, says, steps } = await runCanaries(
    [
      canary('a', () => Promise.reject(new ProviderError('misconfigured', 'another holds the target'))),
      canary('b', () => Promise.reject(new TypeError('canary-secret'))),
      {
        name: 'c',
        open: () => {
          throw new ProviderError('misconfigured', 'its secret is not there');
        },
      },
      canary('d', async () => [well]),
    ],
    never,
  );
  expect([ok, says]).toEqual([false, '3 of 4 steps failed.']);
  expect(steps.map((step) => step.says)).toEqual([
    'another holds the target',
    'TypeError',
    'its secret is not there',
    'it was minted',
  ]);
});

test('whoever is told to stop ends its canary, and what is not reached then has failed', async () => {
  const stop = new AbortController();
  const checked = runCanaries(
    [
      canary('a', (_, signal) => {
        const ended = new Promise<CheckStep[]>((resolve) => {
          signal.addEventListener('abort', () => resolve([{ step: 'end', ok: true, says: 'it was taken back' }]));
        });
        stop.abort();
        return ended;
      }),
      canary('b', async () => [well]),
    ],
    stop.signal,
  );
  expect(await checked).toMatchObject({
    ok: false,
    steps: [
      { entitlement: 'a', says: 'it was taken back' },
      { entitlement: 'b', ok: false, says: 'it was not reached in time' },
    ],
  });
});

test('a target without entitlements was not checked', async () => {
  expect(await runCanaries([], never)).toMatchObject({
    ok: false,
    steps: [],
    says: expect.stringContaining('nothing'),
  });
});
