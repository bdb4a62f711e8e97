import assert from 'node:assert/strict';
import type { CheckStep } from '../../../../src/provider.ts';
import type { CaseOf } from './case.ts';
import { listed } from './list.ts';

export const checkCases: readonly CaseOf[] = [
  {
    name: 'check: a good target passes, for itself and for each entitlement, and nothing stays behind',
    run: async (subject) => {
      const { session } = subject;
      const handles = async (): Promise<readonly string[]> =>
        session.list === undefined ? [] : (await listed(subject)).map(({ handle }) => handle).sort();
      const before = await handles();
      assertPassed('the target', await session.check(null, subject.signal()));
      for (const { name, config } of subject.tested) {
        const steps = await session.check({ name, config }, subject.signal());
        assert.ok(steps.length > 0, `The check of ${name} looks at nothing`);
        assertPassed(name, steps);
      }
      const more = (await handles()).filter((handle) => !before.includes(handle));
      assert.deepEqual(more, [], 'The canary stayed behind');
    },
  },
];

function assertPassed(what: string, steps: readonly CheckStep[]): void {
  const failed = steps.filter(({ ok }) => !ok).map(({ step, says }) => `${step}: ${says}`);
  assert.deepEqual(failed, [], `The check of ${what} fails`);
  for (const { step, says } of steps) assert.ok(step !== '' && says !== '', 'A step that says nothing');
}
