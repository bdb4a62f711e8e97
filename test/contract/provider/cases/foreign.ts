import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { Session } from '../../../../src/provider.ts';
import { classified, contain, endWhole } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { listed } from './list.ts';

export const foreignCases: readonly CaseOf[] = [
  {
    name: 'foreign: what is not ours stays as it was through a whole life beside it, and is never listed as ours',
    run: async (subject) => {
      subject.need('foreign');
      const { foreign } = subject;
      assert.deepEqual(await foreign?.harmed(), [], 'It was harmed before');
      const lives: Live[] = [];
      await subject.each(async (entitlement) =>
        lives.push(await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement))),
      );
      if (subject.session.list !== undefined) {
        const taken = (await listed(subject)).filter(({ handle }) => handle === foreign?.handle);
        assert.deepEqual(
          taken.filter(({ installation }) => installation === subject.system.installation),
          [],
          'What is not ours was listed as ours',
        );
      }
      await endWhole(
        subject,
        lives.map(({ ref }) => ref),
      );
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
    run: (subject) => {
      const other = subject.connect(randomUUID());
      return subject.each((entitlement) => besideAnother(subject, other, entitlement));
    },
  },
];

async function besideAnother(subject: Subject, other: Session, entitlement: Tested): Promise<void> {
  const theirs: Live | undefined = await subject.mint({ session: other, entitlement }).catch((error: unknown) => {
    // The target has an owner, and refuses everybody else: that is a person's matter, and no passing trouble.
    const { errorClass, message } = classified(error, 'mint');
    assert.ok(['denied', 'misconfigured'].includes(errorClass), `Another installation was not refused: ${message}`);
    return undefined;
  });
  const ours = await subject.mint({ entitlement });
  assert.equal(await subject.uses(ours), true, 'Another installation has harmed ours');
  if (theirs === undefined) {
    const [outcome] = await subject.fence([ours.ref], subject.signal(), other).catch((error: unknown) => {
      classified(error, 'fence');
      return [];
    });
    assert.notEqual(outcome?.ok, true, 'Who is refused by the target has ended ours with success');
    assert.equal(await subject.uses(ours), true, 'Who is refused by the target has ended ours');
    await subject.fence([ours.ref]);
    return;
  }
  if (subject.session.list !== undefined) {
    const taken = (await listed(subject)).find(({ handle }) => handle === theirs.ref.handle);
    assert.notEqual(taken?.installation, subject.system.installation, 'Theirs is listed as ours');
  }
  if (entitlement.guarantee.revocation === 'expiry-only') await subject.fence([ours.ref]);
  else await contain(subject, [ours.ref]);
  assert.equal(await subject.uses(theirs), true, 'An end of ours has cut theirs');
  const [outcome] = await subject.fence([theirs.ref], subject.signal(), other);
  assert.ok(outcome?.ok === true, 'The other installation could not end its own');
}
