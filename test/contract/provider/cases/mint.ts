import assert from 'node:assert/strict';
import { NotApplicable } from '../not-applicable.ts';
import { assertRefused, classified, contain } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import { SKEW_MILLIS, type Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** How often the shortest life is asked for, where it was over before it was made. */
const SHORTEST_TRIES = 8;

export const mintCases: readonly CaseOf[] = [
  {
    name: 'mint: what was minted works, and is told to end at its deadline',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        assert.equal(await subject.uses(live), true, `A credential of ${entitlement.name} does not work`);
        const { expiresAt, facts } = live.minted;
        assert.ok(expiresAt.getTime() > subject.now(), 'It expires before it was handed out');
        assert.ok(expiresAt.getTime() <= live.ref.deadline.getTime() + 1000, 'It expires after its deadline');
        for (const [name, value] of Object.entries(facts)) {
          const isScalar = value === null || ['string', 'number', 'boolean'].includes(typeof value);
          assert.ok(isScalar, `The fact ${name} is no string, number, boolean or null`);
        }
        assert.deepEqual(JSON.parse(JSON.stringify(facts)), { ...facts }, 'Facts must survive as JSON');
      }
    },
  },
  {
    name: 'mint: it does exactly what its entitlement allows, and no more',
    run: async (subject) => {
      const exceed = subject.need('exceed');
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        assert.equal(await subject.uses(live), true, `A credential of ${entitlement.name} does not work`);
        const attempts = await exceed.call(subject.system, live.credential, entitlement.name);
        assert.ok(attempts.length > 0, `The driver tried nothing that ${entitlement.name} does not allow`);
        const worked = attempts.filter(({ came }) => came !== 'refused').map(({ what }) => what);
        assert.deepEqual(worked, [], `${entitlement.name} allows what it does not say`);
      }
    },
  },
  {
    name: 'mint: params bind each credential to its own, and what nothing binds is refused',
    run: async (subject) => {
      const bound = subject.tested.filter(({ params }) => params !== undefined);
      if (subject.driver.provider.bindsParams !== true) {
        assert.deepEqual(bound, [], 'The driver has entitlements with params, and the provider does not bind any');
        const stray = { changes: { params: { tenant: 'acme' } } };
        const error: unknown = await subject.mint(stray).then(
          () => null,
          (thrown: unknown) => thrown,
        );
        assert.notEqual(error, null, 'Params that nothing binds were taken');
        assert.equal(classified(error, 'mint').errorClass, 'misconfigured');
        return;
      }
      assert.notEqual(bound.length, 0, 'The provider binds params: the driver needs an entitlement with two bindings');
      for (const entitlement of bound) {
        const [one, other] = entitlement.params ?? [{}, {}];
        for (const [own, foreign] of [
          [one, other],
          [other, one],
        ] as const) {
          const live = await subject.mint({ entitlement, params: own });
          assert.equal(await subject.uses(live), true, `Bound to ${JSON.stringify(own)} it does not reach its own`);
          const reached = await subject.system.use(live.credential, entitlement.name, foreign);
          assert.equal(reached, 'refused', `Bound to ${JSON.stringify(own)} it reaches ${JSON.stringify(foreign)}`);
        }
      }
    },
  },
  {
    name: 'mint: the shortest and the longest life that it promises can be had',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const { min_ttl_seconds: least, max_ttl_seconds: most } = entitlement.guarantee;
        for (const seconds of new Set([least, Math.max(least, most - 1)])) {
          const live = await mintedFor(subject, entitlement, 1000 * seconds);
          const short = live.ref.deadline.getTime() - live.minted.expiresAt.getTime();
          assert.ok(short >= -1000, `${seconds} s: it lives longer`);
          assert.ok(
            short <= SKEW_MILLIS,
            `${seconds} s are promised, and it ends ${Math.round(short / 1000)} s before`,
          );
          if (subject.session.ends === undefined) continue;
          const [ends] = await subject.session.ends([live.ref], subject.signal());
          // It may be over by now.
          if (live.ref.deadline.getTime() < subject.now() + SKEW_MILLIS) continue;
          const off = Math.abs((ends?.getTime() ?? 0) - live.minted.expiresAt.getTime());
          assert.ok(off <= SKEW_MILLIS, `${seconds} s: \`ends\` says something else than its mint`);
        }
      }, subject.tested),
  },
  {
    name: 'mint: later than its mint_by it has no effect',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const ref = subject.ref();
        const mintBy = new Date(subject.now() - SKEW_MILLIS - 1000);
        const late = await subject.mint({ ref, entitlement, changes: { mintBy } }).then(
          () => 'It was minted after its mint_by',
          (error: unknown) => void classified(error, 'mint'),
        );
        assert.equal(late, undefined);
        assert.deepEqual(await subject.system.look(ref.handle, null), [], 'It left something');
      }),
  },
  {
    name: 'mint: one connection at a time, where that is asked for',
    run: async (subject) => {
      const able = subject.tested.find(({ guarantee }) => guarantee.one_connection === true);
      if (able === undefined) throw new NotApplicable('the guarantee does not say `one_connection`');
      const open = subject.need('open');
      const live = await subject.mint({ entitlement: able, changes: { oneConnection: true } });
      const session = await open.call(subject.system, live.credential, able.name);
      try {
        assert.equal(await session.works(), 'works');
        assert.equal(await subject.uses(live), false, 'A second connection was let in');
      } finally {
        await session.close();
      }
    },
  },
  {
    name: 'mint: asked twice for one handle, nothing outlives its end',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const first = await subject.mint({ entitlement });
        const second = await subject
          .mint({ entitlement, ref: { ...first.ref, facts: null } })
          .catch((error: unknown) => void classified(error, 'mint'));
        await contain(subject, [first.ref]);
        await assertRefused(subject, first, 'its end');
        if (second !== undefined) await assertRefused(subject, second, 'the end of its handle');
      }),
  },
];

/** On a slow machine the shortest life is over before it was made: it is tried again, and must be had once. */
async function mintedFor(subject: Subject, entitlement: Tested, lifeMillis: number): Promise<Live> {
  for (let tried = 1; ; tried += 1) {
    const ref = subject.ref(lifeMillis);
    try {
      return await subject.mint({ entitlement, ref });
    } catch (error) {
      if (tried === SHORTEST_TRIES || subject.now() < ref.deadline.getTime() - 300) throw error;
      classified(error, 'mint');
    }
  }
}
