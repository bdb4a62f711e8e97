import assert from 'node:assert/strict';
import { contain, until } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Live } from '../live.ts';
import { SKEW_MILLIS, type Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

export const guaranteeCases: readonly CaseOf[] = [
  {
    name: 'guarantee: it is whole, and a person can read it',
    run: async (subject) => {
      for (const { name, guarantee } of subject.tested) {
        const { min_ttl_seconds: least, max_ttl_seconds: most, propagation_seconds: spreads } = guarantee;
        assert.ok(Number.isInteger(least) && Number.isInteger(most) && least >= 1 && least <= most, `TTLs of ${name}`);
        assert.match(guarantee.says, /^\p{Lu}.*\S.*\.$/su, 'What it says is no sentence');
        if (guarantee.revocation === 'propagating') assert.ok((spreads ?? 0) > 0, '`propagating`, and not how long');
        if (guarantee.revocation === 'immediate') assert.equal(spreads ?? 0, 0, '`immediate`, and it spreads');
      }
    },
  },
  {
    name: 'guarantee: an early end takes effect within what it says, and is not called contained before',
    run: async (subject) => {
      const late: number[] = [];
      for (const entitlement of subject.tested) {
        const { revocation } = entitlement.guarantee;
        if (revocation === 'irrevocable') continue;
        const live = await subject.mint({ entitlement });
        assert.equal(await subject.uses(live), true, `A credential of ${entitlement.name} does not work`);
        late.push(await measured(subject, live));
        await contain(subject, [live.ref]);
      }
      if (late.length === 0) throw new NotApplicable('it says `irrevocable`: what was read cannot be unread');
      return { lateMillis: Math.max(...late) };
    },
  },
  {
    name: 'guarantee: native expiry: with the broker away the target itself refuses after the deadline',
    run: async (subject) => {
      const able = subject.tested.filter(({ guarantee }) => guarantee.native_expiry);
      if (able.length === 0) throw new NotApplicable('the guarantee says `native_expiry: false`');
      const lives: Live[] = [];
      for (const entitlement of able) {
        let live: Live | undefined;
        // On a slow machine it is over before it could be used.
        for (let longer = 1; live === undefined; longer *= 2) {
          const minted = await subject.mintBriefly({ entitlement }, longer * subject.shortLife(entitlement));
          if (await subject.uses(minted)) live = minted;
          else assert.ok(longer < 8, `A credential of ${entitlement.name} never worked`);
        }
        lives.push(live);
      }
      for (const live of lives) {
        await subject.pass(Math.max(0, live.ref.deadline.getTime() - subject.now()));
        const says = `${live.entitlement.name}, past its deadline with the broker away,`;
        await until(subject, SKEW_MILLIS, says, async () => ((await subject.uses(live)) ? 'works' : null));
      }
    },
  },
];

/** From the end asked for to the first refusal. Milliseconds, by the system's clock. */
async function measured(subject: Subject, live: Live): Promise<number> {
  const { revocation, propagation_seconds: spreads = 0 } = live.entitlement.guarantee;
  const began = subject.now();
  const [outcome] = await subject.fence([live.ref]);
  assert.ok(outcome?.ok === true, 'The fence is no success');
  const fenced = subject.now();
  const most = {
    immediate: 0,
    propagating: 1000 * spreads,
    'expiry-only': live.ref.deadline.getTime() - fenced + SKEW_MILLIS,
    irrevocable: 0,
  }[revocation];
  await until(subject, most, 'the end took longer than the guarantee says', async () => {
    const [verdict] = await subject.verify([live.ref]);
    const works = await subject.uses(live);
    assert.ok(!(works && verdict?.ok === true && verdict.contained), 'What still works was called contained');
    return works ? 'it still works' : null;
  });
  return revocation === 'expiry-only'
    ? Math.max(0, subject.now() - live.ref.deadline.getTime())
    : subject.now() - began;
}
