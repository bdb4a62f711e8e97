import { assertRefused, classified, contain, until } from '../ending.ts';
import type { Live, Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

export const restartCases: readonly CaseOf[] = [
  {
    name: 'restart: what was ended stays ended, a late mint too; what lived is ended; all goes on',
    run: async (subject) => {
      const restart = subject.need('restart');
      const [ended, lived] = [await subject.mint(), await subject.mint()];
      const never = subject.ref();
      const early = subject.first.guarantee.revocation !== 'expiry-only';
      if (early) await contain(subject, [ended.ref, never]);
      await restart.call(subject.system);
      if (early) {
        await assertRefused(subject, ended, 'its end and a restart');
        const late = await subject.mint({ ref: never }).catch((error: unknown) => void classified(error, 'mint'));
        if (late !== undefined) await assertRefused(subject, late, 'a fence, a restart and then its mint');
      }
      await contain(subject, [ended.ref, lived.ref, never]);
      await assertRefused(subject, lived, 'a restart and its end');
      await until(subject, 30_000, 'after the restart', () => works(subject));
    },
  },
];

async function works(subject: Subject): Promise<string | null> {
  const minted = await subject.mint().catch((error: unknown) => classified(error, 'mint'));
  if (minted instanceof Error) return minted.message;
  const live: Live = minted;
  return (await subject.uses(live)) ? null : 'what was minted does not work';
}
