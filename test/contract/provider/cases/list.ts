import assert from 'node:assert/strict';
import type { Found } from '../../../../src/provider.ts';
import { assertRefused, endWhole, until } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More pages than any test fills: the end of a list must come. */
const MOST_PAGES = 100;

export const listCases: readonly CaseOf[] = [
  {
    name: 'list: what lives is there once, with the grant and installation of its mark; what is clean is not',
    run: async (subject) => {
      const lives = [await subject.mint(), await subject.mint(), await subject.mint()];
      const found = await listed(subject);
      const handles = found.map(({ handle }) => handle);
      assert.equal(new Set(handles).size, handles.length, 'A handle is listed twice');
      for (const { ref } of lives) {
        const one = found.find(({ handle }) => handle === ref.handle);
        assert.ok(one !== undefined, 'What lives is not listed');
        assert.equal(one.grantId, ref.grantId);
        assert.equal(one.installation, subject.system.installation);
      }
      const short = await subject.mintBriefly({}, subject.lifeToClean(subject.first));
      await endWhole(subject, [short.ref]);
      await until(subject, 60_000, 'the list', async () =>
        (await listed(subject)).some(({ handle }) => handle === short.ref.handle) ? 'holds what is clean' : null,
      );
    },
  },
  {
    name: 'list: an orphan is ended by no more than the list says of it',
    run: async (subject) => {
      const live = await subject.mintBriefly({}, subject.lifeToClean(subject.first));
      const orphan = (await listed(subject)).find(({ handle }) => handle === live.ref.handle);
      assert.ok(orphan !== undefined && orphan.grantId !== null, 'The orphan is not listed with its grant');
      const { handle, grantId, facts } = orphan;
      await endWhole(subject, [{ handle, grantId, facts, deadline: live.ref.deadline }]);
      await assertRefused(subject, live, 'its end as an orphan');
    },
  },
];

/** All pages. @throws NotApplicable */
export async function listed(subject: Subject): Promise<readonly Found[]> {
  const { session } = subject;
  const says = subject.tested.some(({ guarantee }) => guarantee.enumerable);
  assert.equal(session.list !== undefined, says, 'The guarantee says `enumerable` exactly where there is a `list`');
  if (session.list === undefined) throw new NotApplicable('the guarantee says that nothing can be listed');
  const found: Found[] = [];
  let after: string | undefined;
  for (let page = 0; ; page += 1) {
    assert.ok(page < MOST_PAGES, 'The list has no end');
    const more = await session.list(subject.signal(), after);
    const fresh = more.filter(({ handle }) => found.every((one) => one.handle !== handle));
    found.push(...more.filter((one) => fresh.includes(one)));
    // A list without pages answers all of it each time.
    if (fresh.length === 0) return found;
    after = fresh.at(-1)?.handle;
  }
}
