import assert from 'node:assert/strict';
import { within } from '../../../../src/provider.ts';
import { contain } from '../ending.ts';
import type { CaseOf } from './case.ts';
import { callAll, prepareAll } from './every-call.ts';

export const secretCases: readonly CaseOf[] = [
  {
    name: 'secrets: in no log line, error, fact, evidence or answer of all that was heard',
    run: async (subject) => {
      const { faults, rights } = subject.system;
      const all = await prepareAll(subject);
      // Errors are where they get out.
      await rights?.lose();
      try {
        await Promise.all(all.map((on) => callAll(subject, on, subject.signal(), 10_000)));
      } finally {
        await rights?.restore();
      }
      await faults?.refuse();
      const signal = within(500);
      await Promise.all(
        all.map((on) => callAll(subject, { ...on, late: subject.ref() }, signal, 500 + subject.graceMillis)),
      );
      await faults?.heal();
      await contain(
        subject,
        all.flatMap(({ fenced, verified, renewed, reaped }) => [fenced.ref, verified.ref, renewed.ref, reaped.ref]),
      );
      assert.ok(subject.notes.size > 10, 'Nothing was heard');
      assert.deepEqual(subject.notes.leaks(), [], 'A secret was let out');
    },
  },
];
