import assert from 'node:assert/strict';
import type { Facts, Ref, Verdict } from '../../../../src/provider.ts';
import { classified, contain } from '../ending.ts';
import type { Live } from '../live.ts';
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
    run: (subject) =>
      subject.each(async ({ guarantee }) => {
        const ref = subject.ref();
        const before = await verdictOn(subject, ref);
        // Nothing keeps its mint from arriving now.
        if (before.ok) assert.equal(before.contained, false, 'Absence was called contained with a mint still to come');
        if (guarantee.revocation !== 'expiry-only') await contain(subject, [ref]);
      }),
  },
  {
    name: 'verify: facts that lie never make a living credential gone',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        const forged = subject.system.forge?.(live.ref, live.minted.facts) ?? [];
        for (const [name, facts] of [...lies(live.minted.facts), ...forged]) {
          const verdict = await verdictOn(subject, { ...live.ref, facts });
          const gone = verdict.ok && verdict.contained && (await subject.uses(live));
          assert.equal(gone, false, `With another \`${name}\` in its facts, what works was called contained`);
        }
      }
    },
  },
  {
    name: 'verify: with the facts of another grant, what works is never gone, and the other is not harmed',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const [one, other] = [await subject.mint({ entitlement }), await subject.mint({ entitlement })];
        const mixed = { ...one.ref, facts: other.ref.facts };
        const [outcome] = await subject.fence([mixed]).catch((error: unknown) => {
          classified(error, 'fence');
          return [];
        });
        assert.equal(await subject.uses(other), true, 'An end with the facts of another has ended that');
        if (outcome?.ok === true) await assertNotGone(subject, one, mixed);
        if (entitlement.guarantee.revocation !== 'expiry-only') await contain(subject, [other.ref]);
        await assertNotGone(subject, one, mixed);
        await contain(subject, [one.ref, other.ref]);
      }),
  },
  {
    name: 'verify: another system behind the address is misconfigured, never gone',
    run: async (subject) => {
      const replace = subject.need('replace');
      const lives: Live[] = [];
      await subject.each(async (entitlement) => lives.push(await subject.mint({ entitlement })));
      const back = await replace.call(subject.system);
      try {
        for (const { ref } of lives) {
          const verdict = await verdictOn(subject, ref);
          assert.ok(!verdict.ok, 'Another system was asked, and answered');
          assert.equal(verdict.error.errorClass, 'misconfigured');
          const [fenced] = await subject.fence([ref]).catch((error: unknown) => {
            assert.notEqual(classified(error, 'fence').errorClass, 'gone');
            return [];
          });
          assert.notEqual(fenced?.ok, true, 'A fence in another system was called a success');
        }
      } finally {
        await back();
      }
      for (const live of lives)
        if (live.entitlement.guarantee.revocation !== 'expiry-only')
          assert.equal(await subject.uses(live), true, 'It does not work in its own system any more');
      await contain(
        subject,
        lives.map(({ ref }) => ref),
      );
    },
  },
];

async function assertNotGone(subject: Subject, live: Live, ref: Ref): Promise<void> {
  const verdict = await verdictOn(subject, ref);
  const gone = verdict.ok && verdict.contained && (await subject.uses(live));
  assert.equal(gone, false, 'With the facts of another, what works was called contained');
}

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
