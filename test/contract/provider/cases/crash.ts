import assert from 'node:assert/strict';
import type { Ref } from '../../../../src/provider.ts';
import { within } from '../../../../src/provider.ts';
import { assertRefused, classified, endWhole } from '../ending.ts';
import type { Live, Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** After how long the broker is killed: before it has sent anything, and at moments on the way. Milliseconds. */
const moments = [0, 1, 3, 10, 30];

/** How long a mint may take to take effect, in these cases. Milliseconds. */
const MINT_MILLIS = 5_000;

export const crashCases: readonly CaseOf[] = [
  {
    name: 'crash: intended and never minted, its end leaves nothing',
    run: async (subject) => {
      const ref = subject.ref(subject.lifeToClean(subject.first));
      await endWhole(subject, [ref]);
      return { leftBehind: 0 };
    },
  },
  {
    name: 'crash: killed at moments of a mint, its end without facts leaves nothing',
    run: async (subject) => {
      const refs = await Promise.all(moments.map((moment) => killedAt(subject, moment)));
      await endWhole(subject, refs);
      return { leftBehind: 0 };
    },
  },
  {
    name: 'crash: minted and the answer lost, its end without facts leaves nothing and nobody in',
    run: async (subject) => {
      const lives: Live[] = [];
      for (const entitlement of subject.tested) {
        lives.push(await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement)));
      }
      await endWhole(
        subject,
        lives.map(({ ref }) => ({ ...ref, facts: null })),
      );
      for (const live of lives) {
        await assertRefused(subject, live, 'an end without facts');
        assert.deepEqual(
          await subject.system.look(live.ref.handle, live.ref.facts),
          [],
          'By its facts something is left',
        );
      }
      return { leftBehind: 0 };
    },
  },
];

/** The broker dies so long after it began to mint: nothing of the answer is known any more. */
async function killedAt(subject: Subject, moment: number): Promise<Ref> {
  const ref = subject.ref(subject.lifeToClean(subject.first));
  const signal = moment === 0 ? AbortSignal.abort() : within(moment);
  const mintBy = new Date(subject.now() + MINT_MILLIS);
  await subject.mint({ ref, signal, changes: { mintBy } }).catch((error: unknown) => {
    if (error !== signal.reason) classified(error, 'mint');
  });
  return ref;
}
