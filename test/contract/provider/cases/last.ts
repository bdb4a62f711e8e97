import assert from 'node:assert/strict';
import type { Ref } from '../../../../src/provider.ts';
import { assertAnswers, contain, until } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Subject } from '../subject.ts';
import { SKEW_MILLIS } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** What no driver may be without: without these the suite shows too little. */
const floor = ['foreign', 'rights', 'restart', 'faults'] as const;

/** Refs in one batch. */
const BATCH = 40;

export const lastCases: readonly CaseOf[] = [
  {
    name: 'conformance: the driver can cut off, take rights away, restart, and make what is not ours',
    run: async (subject) => {
      const { system, extent } = subject;
      const lacks = floor.filter((name) => system[name] === undefined).map(String);
      if (system.faults?.apart === undefined && !lacks.includes('faults')) lacks.push('faults.apart');
      assert.deepEqual(lacks, [], 'Not conformant, since this was not tried');
      if (extent.bounded === true)
        throw new NotApplicable('it was a bounded run, which shows the mechanism of one entitlement');
    },
  },
  {
    name: 'conformance: when all is over nothing of ours is left in the system, and nothing secret was let out',
    run: async (subject) => {
      const all = subject.ledger.all.filter(
        ({ entitlement: { guarantee }, ref, gone }) =>
          !gone &&
          (guarantee.revocation !== 'expiry-only' || ref.deadline.getTime() + SKEW_MILLIS < subject.now() + 30_000),
      );
      const lives = all.map(({ ref }) => ref);
      for (let from = 0; from < lives.length; from += BATCH) await over(subject, lives.slice(from, from + BATCH));
      assert.deepEqual((await subject.foreign?.harmed()) ?? [], [], 'What is not ours was harmed');
      assert.deepEqual(subject.notes.leaks(), [], 'A secret was let out');
      return { leftBehind: 0 };
    },
  },
];

/** Contained; and what may be cleaned by now is clean, by the driver's own look. */
async function over(subject: Subject, refs: readonly Ref[]): Promise<void> {
  await contain(subject, refs);
  await until(subject, 30_000, 'it could not be cleaned', async () => {
    const outcomes = await subject.reap(refs);
    assertAnswers(outcomes, refs);
    for (const [index, outcome] of outcomes.entries()) {
      const ref = refs[index];
      if (ref === undefined) continue;
      if (!outcome.ok && outcome.error.errorClass !== 'retryable') throw outcome.error;
      if (!outcome.ok) return outcome.error.message;
      // Elsewhere it must rest until then.
      if (outcome.notBefore !== undefined) continue;
      const left = await subject.system.look(ref.handle, ref.facts);
      if (left.length > 0) return `${left.join()} is left`;
    }
    return null;
  });
}
