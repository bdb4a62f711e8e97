import { beforeEach, expect, test, vi } from 'vitest';
import { AwsClock } from './clock.ts';

const start = Date.parse('2030-01-01T00:00:10.500Z');
let mono: number;
let wall: number;
let clock: AwsClock;

beforeEach(() => {
  [mono, wall] = [1_000_000, start];
  vi.spyOn(performance, 'now').mockImplementation(() => mono);
  vi.spyOn(Date, 'now').mockImplementation(() => wall);
  clock = new AwsClock();
});

const pass = (millis: number) => {
  mono += millis;
  wall += millis;
};
/** @param ahead Milliseconds of AWS's clock before the wall clock that was never set. */
const hear = (ahead: number) => {
  const date = new Date(start + mono - 1_000_000 + ahead).toUTCString();
  clock.heard(date, mono - 20, mono);
};

test('an honest clock is not corrected, and one that is off only by what AWS’s answers show', () => {
  expect(clock.offset).toBeNull();
  hear(0);
  expect(clock.offset).toBe(0);
  hear(3_000);
  hear(3_000);
  expect(clock.offset).toBe(2_500);
  expect(clock.toTarget(new Date(0)).getTime()).toBe(2_500);
  expect(clock.fromTarget(new Date(2_500)).getTime()).toBe(0);
  clock.heard('nonsense', mono, mono);
  expect(clock.offset).toBe(2_500);
});

test.each([3_600_000, 240_000, -3_600_000])('our clock that is set by %i ms moves nothing', (step) => {
  hear(0);
  pass(10_000);
  wall += step;
  const now = start + 10_000;
  expect(clock.atLeast()).toBeLessThanOrEqual(now);
  expect(clock.atMost()).toBeGreaterThanOrEqual(now);
  expect(Math.abs(clock.now() - now)).toBeLessThanOrEqual(1_100);
});

test('what AWS said long ago counts no more, and nothing does before it said anything', () => {
  expect({ known: clock.isKnown, least: clock.atLeast(), most: clock.atMost() }).toEqual({
    ...{ known: false, least: null, most: null },
  });
  hear(0);
  pass(59_000);
  expect(clock.isKnown).toBe(true);
  pass(1_001);
  expect({ known: clock.isKnown, least: clock.atLeast() }).toEqual({ known: false, least: null });
});

test('an answer that is far from those before it counts when another one agrees', () => {
  hear(0);
  hear(3_600_000);
  expect(clock.isKnown).toBe(false);
  hear(3_600_000);
  expect(clock.atLeast()).toBeGreaterThan(start + 3_500_000);
});

test('a machine that slept while its clocks stood still takes AWS for earlier than it is, never for later', () => {
  hear(0);
  pass(10_000);
  const slept = 1_800_000;
  expect(clock.atLeast()).toBeLessThanOrEqual(start + 10_000 + slept);
  hear(slept);
  hear(slept);
  expect(clock.atLeast()).toBeGreaterThan(start + slept);
});
