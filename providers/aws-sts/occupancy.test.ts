import { expect, test } from 'vitest';
import type { FenceView, Ref } from '../../src/provider.ts';
import { randomHandle } from './handle.ts';
import { Occupancy } from './occupancy.ts';
import { planFence } from './plan.ts';

const now = Date.parse('2030-01-01T12:00:00Z');
const until = now + 600_000;
const quota = 10_240;
const view = (at: number): FenceView => ({ live: [], writer: 1n, at: new Date(at) });

function refs(count: number, mintedAt: number): Ref[] {
  return Array.from({ length: count }, () => ({
    ...{ grantId: 'none', handle: randomHandle(), deadline: new Date(until) },
    facts: { issued_s: mintedAt / 1000 },
  }));
}

test('a role is full before any of its grants could end so that the whole role is denied', () => {
  const occupancy = new Occupancy();
  const minted = refs(1_000, now);
  let taken = 0;
  for (const { handle } of minted) {
    if (occupancy.fullness(quota, now) !== undefined) break;
    occupancy.minted(handle, until, now);
    taken += 1;
  }
  expect(taken).toBeGreaterThan(200);
  expect(occupancy.fullness(quota, now)).toEqual({ held: taken, room: taken });
  // Whatever share of them ends, at once or after some time: another form than that fits.
  for (const share of [0, 0.3, 0.6, 1])
    for (const age of [1_000, 120_000]) {
      const held = minted.slice(0, Math.round(taken / 0.8)).map(({ handle }) => handle);
      const ending = Math.round(held.length * share);
      const at = now + age;
      const plan = planFence({
        ...{ epoch: 1n, installation: '0123abcd', now: at, seen: at, previous: null, lagMillis: 60_000 },
        ...{ budget: quota, quota },
        live: held.slice(ending).map((handle) => ({ handle, issuedFrom: now })),
        ended: held.slice(0, ending).map((handle) => ({ handle, until, issuedBy: now })),
      });
      expect(plan?.form, `${ending} of ${held.length} after ${age} ms`).not.toBe('role-wide');
    }
});

test('what other brokers minted counts once the store tells of it, and what ended no longer than the cut is behind', () => {
  const occupancy = new Occupancy();
  const [mine, others] = [refs(200, now), refs(200, now)];
  for (const { handle } of mine) occupancy.minted(handle, until, now);
  expect(occupancy.fullness(quota, now)).toBeUndefined();
  occupancy.seen([...mine, ...others], view(now + 1_000), now + 1_000);
  expect(occupancy.fullness(quota, now + 1_000)).toMatchObject({ held: 400 });
  occupancy.ended(others);
  expect(occupancy.fullness(quota, now + 2_000)).toMatchObject({ held: 400 });
  expect(occupancy.fullness(quota, now + 61_000)).toBeUndefined();
  // Of which the store knows nothing any more.
  occupancy.seen([], view(now + 61_000), now + 61_000);
  expect(occupancy.fullness(2_000, now + 130_000)).toBeUndefined();
  expect(occupancy.fullness(quota, until + 1)).toBeUndefined();
});

test('what nobody has said to live for long does not count: another broker may have ended it', () => {
  const occupancy = new Occupancy();
  const minted = refs(300, now);
  for (const { handle } of minted) occupancy.minted(handle, until, now);
  expect(occupancy.fullness(quota, now + 119_000)).toMatchObject({ held: 300 });
  expect(occupancy.fullness(quota, now + 121_000)).toBeUndefined();
  occupancy.seen(minted, view(now + 121_000), now + 121_000);
  expect(occupancy.fullness(quota, now + 121_000)).toMatchObject({ held: 300 });
});

test('what else stands at the role leaves it less', () => {
  const occupancy = new Occupancy();
  for (const { handle } of refs(150, now)) occupancy.minted(handle, until, now);
  expect(occupancy.fullness(quota, now)).toBeUndefined();
  occupancy.read(5_000, null);
  expect(occupancy.fullness(quota, now)).toMatchObject({ held: 150 });
});
