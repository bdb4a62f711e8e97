import assert from 'node:assert/strict';
import { within } from '../../../../src/provider.ts';
import { contain } from '../ending.ts';
import type { CaseOf } from './case.ts';
import { callAll, prepare } from './every-call.ts';

export const secretCases: readonly CaseOf[] = [
  {
    name: 'secrets: in no log line, error, fact, evidence or answer of all that was heard',
    run: async (subject) => {
      const { faults, rights } = subject.system;
      const on = await prepare(subject);
      // Errors are where they get out.
      await rights?.lose();
      try {
        await callAll(subject, on, subject.signal(), 10_000);
      } finally {
        await rights?.restore();
      }
      await faults?.refuse();
      await callAll(subject, { ...on, late: subject.ref() }, within(500), 500 + subject.graceMillis);
      await faults?.heal();
      await contain(subject, [on.fenced.ref, on.verified.ref, on.renewed.ref, on.reaped.ref]);
      assert.ok(subject.notes.size > 10, 'Nothing was heard');
      assert.deepEqual(subject.notes.leaks(), [], 'A secret was let out');
    },
  },
];
