import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Ancestor, TaskState } from '../store/tasks.ts';
import type { Ceiling } from '../domain/task.ts';
import { sampleSeen, sampleTask } from '../http/testing/samples.ts';
import { withinAncestors } from './ancestors.ts';

const NOW = new Date('2026-11-22T18:00:00Z');

const ceilings = fc.record<Ceiling>({
  entitlements: fc.subarray(['a/a', 'a/b', 'b/a', 'b/b']),
  params: fc.dictionary(fc.constantFrom('tenant', 'region'), fc.constantFrom('x', 'y', 1, true)),
  maxTtlSeconds: fc.option(fc.integer({ min: 1, max: 900 })),
});
const ancestors = fc.array(
  fc.record<Ancestor>({
    state: fc.constant('active'),
    phase: fc.constant('plan'),
    ceiling: ceilings,
    max_depth: fc.constant(16),
    not_after_millis: fc.integer({ min: NOW.getTime() + 1, max: NOW.getTime() + 7_200_000 }),
  }),
  { minLength: 1, maxLength: 6 },
);

function stateOf(ceiling: Ceiling, above: readonly Ancestor[] | undefined): TaskState {
  const seen = sampleSeen({ phase: 'plan', ...(above && { ancestors: above }) });
  return { task: sampleTask({ ceiling }), heldSeconds: 0, fingerprint: '', killed: false, heard: {}, now: NOW, seen };
}

describe('a task below others', () => {
  test('has no more than it was given, and no more than any of them has', () => {
    fc.assert(
      fc.property(ceilings, ancestors, (own, above) => {
        const { task } = withinAncestors(stateOf(own, above));
        const all = [own, ...above.map(({ ceiling }) => ceiling)];
        for (const { entitlements, maxTtlSeconds } of all) {
          expect(entitlements).toEqual(expect.arrayContaining([...task.ceiling.entitlements]));
          const allowed = maxTtlSeconds ?? Number.POSITIVE_INFINITY;
          expect(task.ceiling.maxTtlSeconds ?? Number.POSITIVE_INFINITY).toBeLessThanOrEqual(allowed);
        }
        const everywhere = own.entitlements.filter((name) =>
          all.every(({ entitlements }) => entitlements.includes(name)),
        );
        expect(task.ceiling.entitlements).toEqual(everywhere);
        expect(task.ceiling.params).toEqual(above.at(-1)?.ceiling.params);
        const ends = above.map(({ not_after_millis: millis }) => millis);
        expect(task.notAfter.getTime()).toBe(Math.min(...ends, sampleTask().notAfter.getTime()));
      }),
    );
  });

  test.each<[string, Partial<Ancestor>, string]>([
    ['ended', { state: 'completed' }, 'task_ended'],
    ['was never claimed', { state: 'offered' }, 'task_ended'],
    ['is past its deadline', { not_after_millis: NOW.getTime() }, 'task_ended'],
    ['is suspended', { state: 'suspended' }, 'task_suspended'],
    ['is in another phase', { phase: 'closing' }, 'not_in_phase'],
    ['may have none so deep', { max_depth: 1 }, 'excessive_delegation'],
  ])('is refused where the second one above it %s', (_what, change, code) => {
    const [own, parent] = fc.sample(fc.tuple(ceilings, ancestors), 1)[0] ?? [];
    const above = parent?.[0];
    if (own === undefined || above === undefined) throw new Error('there is one');
    expect(() => withinAncestors(stateOf(own, [above, { ...above, ...change }]))).toThrow(
      expect.objectContaining({ code }),
    );
    expect(withinAncestors(stateOf(own, [above, above])).task.id).toBe(sampleTask().id);
  });

  test('that hangs on nothing is as it stands', () => {
    fc.assert(
      fc.property(ceilings, (own) => {
        const state = stateOf(own, undefined);
        expect(withinAncestors(state)).toBe(state);
      }),
    );
  });
});
