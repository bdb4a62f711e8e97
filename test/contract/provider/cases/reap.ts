import assert from 'node:assert/strict';
import { assertNothingLeft, assertRefused, clean, contain } from '../ending.ts';
import type { CaseOf } from './case.ts';

export const reapCases: readonly CaseOf[] = [
  {
    name: 'reap: nothing is left, nothing is open again, and reaping again is success',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement));
        await contain(subject, [live.ref]);
        const [first] = await subject.reap([live.ref]);
        assert.ok(first?.ok === true, 'The first reap is no success');
        // Asked too early it has done no harm.
        await assertRefused(subject, live, 'a reap');
        if (first.notBefore !== undefined)
          assert.ok(Number.isFinite(first.notBefore.getTime()), '`notBefore` is no time');
        await clean(subject, [live.ref]);
        await assertNothingLeft(subject, [live.ref]);
        await assertRefused(subject, live, 'its cleaning');
        const [again] = await subject.reap([live.ref]);
        assert.ok(again?.ok === true, 'A second reap is no success');
        const [fenced] = await subject.fence([live.ref]);
        assert.ok(fenced?.ok === true, 'A fence of what is clean is no success');
      }
      return { leftBehind: 0 };
    },
  },
];
