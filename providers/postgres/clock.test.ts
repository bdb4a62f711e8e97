import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TargetClock } from './clock.ts';

test('a deadline told to the target never comes later there than was decided here', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -10_000_000, max: 10_000_000 }),
      fc.integer({ min: 0, max: 5000 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (ahead, roundTrip, share) => {
        const clock = new TargetClock();
        const sent = 1_800_000_000_000;
        // The target read its clock at any moment between the question and the answer.
        clock.learn(sent, sent + roundTrip, sent + roundTrip * share + ahead);
        const deadline = new Date(sent + 60_000);
        const told = clock.toTarget(deadline).getTime() - ahead;
        expect(told).toBeLessThanOrEqual(deadline.getTime());
        expect(told).toBeGreaterThanOrEqual(deadline.getTime() - roundTrip - 2);
      },
    ),
  );
});

test('a slow answer does not replace a quick one, until that is old', () => {
  const clock = new TargetClock(() => 100_000);
  clock.learn(0, 2, 1001);
  clock.learn(10_000, 14_000, 99_999);
  expect(clock.skew).toMatchObject({ offset: 1000, error: 1 });
  expect(clock.age).toBe(99_998);
  clock.learn(70_000, 74_000, 72_500);
  expect(clock.skew).toMatchObject({ offset: 500, error: 2000 });
});

test('before it was asked the target is taken to agree', () => {
  const clock = new TargetClock();
  expect(clock.skew).toBeNull();
  expect(clock.age).toBe(Infinity);
  expect(clock.toTarget(new Date(5))).toEqual(new Date(5));
});
