import assert from 'node:assert/strict';
import type { CaseOf } from './case.ts';
import { assertHonest, assertRecovers, callAll, prepare } from './every-call.ts';

export const abortCases: readonly CaseOf[] = [
  {
    name: 'signal: fired before the call, each call ends at once and mint makes nothing',
    run: async (subject) => {
      const on = await prepare(subject);
      const signal = AbortSignal.abort();
      const came = await callAll(subject, on, signal, subject.graceMillis);
      await assertHonest(subject, on, came, signal);
      const mint = came.find(({ name }) => name === 'mint');
      assert.ok(mint !== undefined && 'threw' in mint, 'A mint that was called off answered a credential');
      await assertRecovers(subject, on);
    },
  },
];
