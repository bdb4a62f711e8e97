import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { classified, contain, endWhole } from '../ending.ts';
import type { Live, Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { listed } from './list.ts';

export const foreignCases: readonly CaseOf[] = [
  {
    name: 'foreign: what is not ours stays as it was through a whole life beside it, and is never listed as ours',
    run: async (subject) => {
      subject.need('foreign');
      const { foreign } = subject;
      assert.deepEqual(await foreign?.harmed(), [], 'It was harmed before');
      const live = await subject.mintBriefly({}, subject.lifeToClean(subject.first));
      if (subject.session.list !== undefined) {
        const taken = (await listed(subject)).filter(({ handle }) => handle === foreign?.handle);
        assert.deepEqual(
          taken.filter(({ installation }) => installation === subject.system.installation),
          [],
          'What is not ours was listed as ours',
        );
      }
      await endWhole(subject, [live.ref]);
      if (foreign?.handle !== undefined) {
        const ref = { ...subject.ref(), handle: foreign.handle };
        for (const end of [() => subject.fence([ref]), () => subject.reap([ref])]) {
          const [outcome] = await end().catch((error: unknown) => [{ ok: false, error: classified(error, 'an end') }]);
          assert.notEqual(outcome?.ok, true, 'An end of what is not ours was called a success');
        }
      }
      assert.deepEqual(await foreign?.harmed(), [], 'It was harmed');
    },
  },
  {
    name: 'foreign: a credential of another installation is not touched, or there can be none',
    run: async (subject) => {
      const other = subject.connect(randomUUID());
      const theirs: Live | undefined = await subject
        .mint({ session: other })
        // The target has an owner, and everybody else is refused.
        .catch((error: unknown) => void classified(error, 'mint'));
      const ours = await subject.mint();
      assert.equal(await subject.uses(ours), true, 'Another installation has harmed ours');
      if (theirs === undefined) return;
      if (subject.session.list !== undefined) {
        const taken = (await listed(subject)).find(({ handle }) => handle === theirs.ref.handle);
        assert.notEqual(taken?.installation, subject.system.installation, 'Theirs is listed as ours');
      }
      if (subject.first.guarantee.revocation === 'expiry-only') await subject.fence([ours.ref]);
      else await contain(subject, [ours.ref]);
      assert.equal(await subject.uses(theirs), true, 'An end of ours has cut theirs');
      await endTheirs(subject, theirs, other);
    },
  },
];

async function endTheirs(subject: Subject, theirs: Live, session: Subject['session']): Promise<void> {
  const [outcome] = await subject.fence([theirs.ref], subject.signal(), session);
  assert.ok(outcome?.ok === true, 'The other installation could not end its own');
}
