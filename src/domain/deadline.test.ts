import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Bound, shortestLife } from './deadline.ts';
import { retryDelaySeconds } from './revocation.ts';

const bound = fc.record<Bound>({
  by: fc.constantFrom('asked', 'request', 'policy', 'entitlement', 'task', 'provider'),
  seconds: fc.double({ min: 0, max: 86_400, noNaN: true }),
});

describe('the life of a grant', () => {
  test('is never longer than any bound, and one of them', () => {
    fc.assert(
      fc.property(fc.array(bound, { minLength: 1 }), (bounds) => {
        const life = shortestLife(bounds);
        expect(bounds.every(({ seconds }) => life.seconds <= seconds)).toBe(true);
        expect(bounds.some(({ seconds }) => life.seconds === seconds)).toBe(true);
      }),
    );
  });

  test('was not cut when the agent got what it asked for', () => {
    expect(
      shortestLife([
        { by: 'asked', seconds: 60 },
        { by: 'policy', seconds: 60 },
      ]),
    ).toEqual({ seconds: 60, cutBy: null });
    expect(
      shortestLife([
        { by: 'asked', seconds: 61 },
        { by: 'policy', seconds: 60 },
      ]),
    ).toEqual({ seconds: 60, cutBy: 'policy' });
  });
});

describe('the delay before the next try', () => {
  test('grows, is capped, and never stops', () => {
    expect(retryDelaySeconds(1, 0)).toBe(0.25);
    expect(retryDelaySeconds(1, 0.999)).toBeLessThan(0.5);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1_000_000 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (attempts, random) => {
          const delay = retryDelaySeconds(attempts, random);
          expect(delay).toBeGreaterThanOrEqual(0.25);
          expect(delay).toBeLessThanOrEqual(60);
        },
      ),
    );
    expect(retryDelaySeconds(1_000, 0)).toBe(30);
  });
});
