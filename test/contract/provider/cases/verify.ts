import assert from 'node:assert/strict';
import type { Facts, Ref, Verdict } from '../../../../src/provider.ts';
import { classified, contain } from '../ending.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

export const verifyCases: readonly CaseOf[] = [
  {
    name: 'verify: open before its end, contained after it',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        for (const ref of [live.ref, { ...live.ref, facts: null }]) {
          const verdict = await verdictOn(subject, ref);
          if (!verdict.ok) continue;
          assert.equal(verdict.contained, false, `What works was called contained: ${entitlement.name}`);
          assert.notEqual(verdict.open, false, `What works was called not open: ${entitlement.name}`);
        }
        assert.equal((await verdictOn(subject, live.ref)).ok, true, 'It could not look at what it minted');
        await contain(subject, [live.ref]);
        const after = await verdictOn(subject, live.ref);
        assert.ok(after.ok && after.contained, 'What is ended was not called contained');
        assert.ok(typeof after.evidence === 'object' && after.evidence !== null, 'It has no evidence');
      }
    },
  },
  {
    name: 'verify: never minted counts as gone only after its fence',
    run: async (subject) => {
      const ref = subject.ref();
      const before = await verdictOn(subject, ref);
      // Nothing keeps its mint from arriving now.
      if (before.ok) assert.equal(before.contained, false, 'Absence was called contained with a mint still to come');
      if (subject.first.guarantee.revocation !== 'expiry-only') await contain(subject, [ref]);
    },
  },
  {
    name: 'verify: facts that lie never make a living credential gone',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        for (const [name, facts] of lies(live.minted.facts)) {
          const verdict = await verdictOn(subject, { ...live.ref, facts });
          const gone = verdict.ok && verdict.contained && (await subject.uses(live));
          assert.equal(gone, false, `With another \`${name}\` in its facts, what works was called contained`);
        }
      }
    },
  },
  {
    name: 'verify: another system behind the address is misconfigured, never gone',
    run: async (subject) => {
      const replace = subject.need('replace');
      const live = await subject.mint();
      const back = await replace.call(subject.system);
      try {
        const { ref } = live;
        const verdict = await verdictOn(subject, ref);
        assert.ok(!verdict.ok, 'Another system was asked, and answered');
        assert.equal(verdict.error.errorClass, 'misconfigured');
        const [fenced] = await subject.fence([ref]).catch((error: unknown) => {
          assert.notEqual(classified(error, 'fence').errorClass, 'gone');
          return [];
        });
        assert.notEqual(fenced?.ok, true, 'A fence in another system was called a success');
      } finally {
        await back();
      }
      assert.equal(await subject.uses(live), true, 'It does not work in its own system any more');
      await contain(subject, [live.ref]);
    },
  },
];

/** One verdict, thrown or answered. */
async function verdictOn(subject: Subject, ref: Ref): Promise<Verdict> {
  try {
    const verdicts = await subject.verify([ref]);
    assert.equal(verdicts.length, 1, 'Not one answer for one ref');
    const [verdict] = verdicts;
    assert.ok(verdict !== undefined);
    if (!verdict.ok) classified(verdict.error, 'verify');
    return verdict;
  } catch (error) {
    return { ok: false, error: classified(error, 'verify') };
  }
}

/** The facts, each time with one of them wrong, and once with none. */
function lies(facts: Facts): readonly (readonly [string, Facts])[] {
  const wrong = (value: Facts[string]): Facts[string] => {
    if (typeof value === 'number') return value + 1;
    if (typeof value === 'boolean') return !value;
    if (typeof value !== 'string') return 'x';
    // Of the same form where it can be: another id, another time.
    const other = value.replace(/\d/, (digit) => (digit === '1' ? '2' : '1'));
    return other === value ? `x${value}` : other;
  };
  return [
    ...Object.entries(facts).map(([name, value]) => [name, { ...facts, [name]: wrong(value) }] as const),
    ['everything', {}],
  ];
}
