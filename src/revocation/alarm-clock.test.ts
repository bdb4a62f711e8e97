import { afterEach, expect, test, vi } from 'vitest';
import { Secret } from '../domain/secret.ts';
import { AlarmClock } from './alarm-clock.ts';

let clock: AlarmClock | undefined;
afterEach(async () => {
  vi.useRealTimers();
  await clock?.close();
});

/** A clock whose queue can not be reached: what rings is a timer of this process. */
function lonelyClock(): { readonly clock: AlarmClock; readonly rings: string[] } {
  const rings: string[] = [];
  clock = new AlarmClock({
    backend: { kind: 'redis', url: new Secret('redis://127.0.0.1:1') },
    ring: (target) => rings.push(target),
    rang: () => {
      throw new Error('no queue can have rung');
    },
    log: () => {},
  });
  return { clock, rings };
}

test('rings at the moment without its queue, and not before', async () => {
  const { clock: lonely, rings } = lonelyClock();
  const began = Date.now();
  lonely.in('ledger-db', 50);
  await vi.waitFor(() => expect(rings).toEqual(['ledger-db']), { interval: 5 });
  // A timer may come a millisecond early.
  expect(Date.now() - began).toBeGreaterThanOrEqual(48);
});

test.each([
  ['back', -4_000, 9_000],
  ['on', 4_000, 1_000],
])('rings at each moment though the machine’s clock is set %s between', async (_, by, later) => {
  vi.useFakeTimers();
  const { clock: lonely, rings } = lonelyClock();
  lonely.in('ledger-db', 5_000);
  // The same time of day for both.
  vi.setSystemTime(Date.now() + by);
  lonely.in('ledger-db', later);
  const [first, last] = [5_000, later].sort((a, b) => a - b);
  for (const count of [1, 2]) {
    await vi.advanceTimersByTimeAsync(count === 1 ? (first ?? 0) + 20 : (last ?? 0) - (first ?? 0));
    expect(rings).toHaveLength(count);
  }
});

test('rings once for all that falls due in one hundredth of a second, and for each target', async () => {
  const { clock: lonely, rings } = lonelyClock();
  const moment = Math.ceil(performance.now() / 10) * 10 + 105;
  for (const target of ['ledger-db', 'other-db', 'ledger-db']) lonely.in(target, moment - performance.now());
  lonely.in('last-db', moment + 50 - performance.now());
  await vi.waitFor(() => expect(rings).toContain('last-db'), { interval: 5 });
  // Two timers of one moment go off in whatever order.
  expect([...rings.slice(0, 2).toSorted(), ...rings.slice(2)]).toEqual(['ledger-db', 'other-db', 'last-db']);
});

test('rings no more once it is closed, and not for what lies beyond its horizon', async () => {
  const { clock: lonely, rings } = lonelyClock();
  lonely.in('ledger-db', 20);
  lonely.in('far-db', 3_600_000);
  await lonely.close();
  lonely.in('ledger-db', 20);
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(rings).toEqual([]);
});
