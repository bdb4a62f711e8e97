import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { Ref } from '../../../../src/provider.ts';
import { assertAnswers, assertRefused, contain, endWhole } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Live } from '../live.ts';
import type { CaseOf } from './case.ts';

export const fenceCases: readonly CaseOf[] = [
  {
    name: 'fence: access is cut, by effect; again it is success',
    run: async (subject) => {
      for (const entitlement of subject.tested) {
        const live = await subject.mint({ entitlement });
        assert.equal(await subject.uses(live), true, `A credential of ${entitlement.name} does not work`);
        await contain(subject, [live.ref]);
        await assertRefused(subject, live, 'its end');
        const [again] = await subject.fence([live.ref]);
        assert.ok(again?.ok === true, 'A second fence is no success');
        const [blind] = await subject.fence([{ ...live.ref, facts: null }]);
        assert.ok(blind?.ok === true, 'A fence without facts, of what is fenced, is no success');
        await contain(subject, [live.ref]);
        await assertRefused(subject, live, 'its second end');
      }
    },
  },
  {
    name: 'fence: a batch is answered whole and in order, and nobody else is touched',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const sibling = await subject.mint({ entitlement, lifeMillis: 60_000 });
        const mint = (): Promise<Live> => subject.mint({ entitlement });
        const lives = [await mint(), await mint(), await mint()] as const;
        const gone = await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement));
        await endWhole(subject, [gone.ref]);
        const refs = [lives[0].ref, subject.ref(), lives[1].ref, gone.ref, { ...lives[2].ref, facts: null }];
        assertAnswers(await subject.fence(refs), refs);
        const answers = await subject.verify(refs);
        assertAnswers(answers, refs);
        await contain(subject, [lives[0].ref, lives[1].ref, lives[2].ref]);
        for (const live of lives) await assertRefused(subject, live, 'the end of its batch');
        assert.equal(await subject.uses(sibling), true, 'A sibling that was not in the batch was cut');
        assertAnswers(await subject.fence([]), []);
        assertAnswers(await subject.verify([]), []);
      }),
  },
  {
    name: 'fence: one bad ref fails alone',
    run: async (subject) => {
      const [one, other] = [await subject.mint(), await subject.mint()];
      const bad: Ref = { ...subject.ref(), grantId: randomUUID(), handle: `no handle of ours; '"\\ \${x} *` };
      const foreign = subject.foreign?.handle;
      const named = foreign === undefined ? [] : [{ ...subject.ref(), handle: foreign }];
      const refs = [one.ref, bad, ...named, other.ref];
      const outcomes = await subject.fence(refs);
      assertAnswers(outcomes, refs);
      for (const index of [0, refs.length - 1]) {
        const outcome = outcomes[index];
        assert.ok(outcome?.ok === true, 'A good ref failed with the bad one');
      }
      const onForeign = foreign === undefined ? undefined : outcomes[2];
      assert.ok(onForeign?.ok !== true, 'A fence of what is not ours was called a success');
      assertAnswers(await subject.verify(refs), refs);
      assertAnswers(await subject.reap([bad, ...named]), [bad, ...named]);
      await contain(subject, [one.ref, other.ref]);
      for (const live of [one, other]) await assertRefused(subject, live, 'its end beside a bad ref');
      assert.deepEqual((await subject.foreign?.harmed()) ?? [], []);
    },
  },
  {
    name: 'fence: sessions that are open end with it, where the guarantee says so',
    run: async (subject) => {
      const able = subject.tested.filter(({ guarantee }) => guarantee.ends_sessions);
      if (able.length === 0) throw new NotApplicable('the guarantee does not say `ends_sessions`');
      const open = subject.need('open');
      for (const entitlement of able) {
        const live = await subject.mint({ entitlement });
        const session = await open.call(subject.system, live.credential, entitlement.name);
        try {
          assert.equal(await session.works(), 'works', 'An open session does not work');
          await contain(subject, [live.ref]);
          assert.equal(await session.works(), 'refused', 'A session that was open goes on after the end');
        } finally {
          await session.close();
        }
      }
    },
  },
];
