import assert from 'node:assert/strict';
import type { CaseOf } from './case.ts';
import { assertHonest, assertRecovers, callAll, prepareAll } from './every-call.ts';

export const abortCases: readonly CaseOf[] = [
  {
    name: 'signal: fired before the call, each call ends at once and mint makes nothing',
    run: async (subject) => {
      const signal = AbortSignal.abort();
      const all = await prepareAll(subject);
      const came = await Promise.all(all.map((on) => callAll(subject, on, signal, subject.graceMillis)));
      for (const [index, on] of all.entries()) {
        const own = came[index] ?? [];
        await assertHonest(subject, on, own, signal);
        const mint = own.find(({ name }) => name === 'mint');
        assert.ok(mint !== undefined && 'threw' in mint, 'A mint that was called off answered a credential');
        await assertRecovers(subject, on);
      }
    },
  },
];
