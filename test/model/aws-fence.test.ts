import fc from 'fast-check';
import { expect, it } from 'vitest';
import { type Scenario, simulate } from './aws-fence/simulate.ts';

/** As `role-fence.ts` does it. */
const rules = { paceMs: 1000, lagMs: 60_000, idleMs: 300_000, settledMs: 60_000, abandonedMs: 600_000 };

const lives: fc.Arbitrary<Scenario> = fc.record({
  seed: fc.nat(),
  seconds: fc.constant(240),
  grantsPerSecond: fc.double({ min: 0.2, max: 4, noNaN: true }),
  roles: fc.integer({ min: 1, max: 3 }),
  taskSeconds: fc.integer({ min: 5, max: 60 }),
  ttlSeconds: fc.integer({ min: 60, max: 600 }),
  propagationSeconds: fc.integer({ min: 0, max: 60 }),
  clockOffsetMs: fc.integer({ min: -5000, max: 5000 }),
  clockErrorMs: fc.integer({ min: -1000, max: 1000 }),
  renewed: fc.double({ min: 0, max: 0.3, noNaN: true }),
  crashed: fc.double({ min: 0, max: 0.2, noNaN: true }),
  brokers: fc.integer({ min: 1, max: 3 }),
  restartSeconds: fc.integer({ min: 20, max: 300 }),
  heldUp: fc.double({ min: 0, max: 0.05, noNaN: true }),
  lateDeletions: fc.double({ min: 0, max: 1, noNaN: true }),
  samples: fc.constant(10),
  rules: fc.constant(rules),
});

const clean = { deniedWrongly: { count: 0, first: [] }, letThrough: { count: 0, first: [] }, disputed: [] };

it('the fence denies whoever it says it denies, and nobody else, whatever comes late, twice, or not at all', async () => {
  await fc.assert(
    fc.asyncProperty(lives, async (scenario) => {
      expect(await simulate(scenario)).toMatchObject(clean);
    }),
    // The same ones each time; more of them by `npm run bench -- fence --seed`. To shrink one takes minutes.
    { numRuns: 12, seed: 20, endOnFailure: true },
  );
});

it('nor after quiet minutes, when another broker takes away what is old, and its deletions come late', async () => {
  const quiet = fc.record({
    seed: fc.nat(),
    grantsPerSecond: fc.double({ min: 0.005, max: 0.02, noNaN: true }),
    propagationSeconds: fc.integer({ min: 0, max: 60 }),
    brokers: fc.integer({ min: 2, max: 3 }),
    restartSeconds: fc.integer({ min: 300, max: 3600 }),
    heldUp: fc.double({ min: 0, max: 0.02, noNaN: true }),
  });
  const same = {
    ...{ seconds: 7200, roles: 1, taskSeconds: 30, ttlSeconds: 3600, clockOffsetMs: -2000, clockErrorMs: 700 },
    ...{ renewed: 0, crashed: 0.05, lateDeletions: 1, samples: 5, rules },
  };
  await fc.assert(
    fc.asyncProperty(quiet, async (scenario) => {
      expect(await simulate({ ...same, ...scenario })).toMatchObject(clean);
    }),
    { numRuns: 20, seed: 20, endOnFailure: true },
  );
});

it('holds 20 grants a second on eight roles within the quota, without ever denying a whole role', async () => {
  const result = await simulate({
    ...{ seed: 1, seconds: 300, grantsPerSecond: 20, roles: 8, taskSeconds: 60, ttlSeconds: 900 },
    ...{ propagationSeconds: 60, clockOffsetMs: 1500, clockErrorMs: 700, renewed: 0.05, crashed: 0.01 },
    ...{ brokers: 2, restartSeconds: 600, heldUp: 0.0005, lateDeletions: 0.01, samples: 50, rules },
  });
  expect(result).toMatchObject({ ...clean, lost: 0, refusedWrites: 0, noRoom: 0 });
  expect(result.ended).toBeGreaterThan(4000);
  expect(result.forms).toHaveProperty('watermark');
});
