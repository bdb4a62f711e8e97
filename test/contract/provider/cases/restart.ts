import type { Ref } from '../../../../src/provider.ts';
import { assertRefused, classified, contain, until } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** What is there before the restart. */
interface Before {
  readonly entitlement: Tested;
  readonly early: boolean;
  readonly ended: Live;
  readonly lived: Live;
  readonly never: Ref;
}

export const restartCases: readonly CaseOf[] = [
  {
    name: 'restart: of system and broker: what was ended stays ended, a late mint too; what lived is ended; all goes on',
    run: async (subject) => {
      const restart = subject.need('restart');
      const all: Before[] = [];
      await subject.each(async (entitlement) => {
        const early = entitlement.guarantee.revocation !== 'expiry-only';
        const [ended, lived] = [await subject.mint({ entitlement }), await subject.mint({ entitlement })];
        const never = subject.ref(early ? undefined : subject.lifeToClean(entitlement));
        if (early) await contain(subject, [ended.ref, never]);
        all.push({ entitlement, early, ended, lived, never });
      });
      await restart.call(subject.system);
      await subject.startAnew();
      await subject.each(async (entitlement) => {
        const before = all.find((one) => one.entitlement === entitlement);
        if (before === undefined) return;
        const { early, ended, lived, never } = before;
        if (early) {
          await assertRefused(subject, ended, 'its end and a restart');
          const late = await subject
            .mint({ ref: never, entitlement })
            .catch((error: unknown) => void classified(error, 'mint'));
          if (late !== undefined) await assertRefused(subject, late, 'a fence, a restart and then its mint');
        }
        await contain(subject, [ended.ref, lived.ref, never]);
        await assertRefused(subject, lived, 'a restart and its end');
        await until(subject, 30_000, 'after the restart', () => works(subject, entitlement));
      });
    },
  },
];

async function works(subject: Subject, entitlement: Tested): Promise<string | null> {
  const minted = await subject.mint({ entitlement }).catch((error: unknown) => classified(error, 'mint'));
  if (minted instanceof Error) return minted.message;
  const live: Live = minted;
  return (await subject.uses(live)) ? null : 'what was minted does not work';
}
