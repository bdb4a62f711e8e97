import assert from 'node:assert/strict';
import type { Found } from '../../../../src/provider.ts';
import { assertNothingLeft, assertRefused, contain, endWhole, until } from '../ending.ts';
import type { Live } from '../live.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More pages than any test fills: the end of a list must come. */
const MOST_PAGES = 100;

export const listCases: readonly CaseOf[] = [
  {
    name: 'list: what lives is there once, with the grant and installation of its mark; what is clean is not',
    run: async (subject) => {
      const lives: Live[] = [];
      for (const entitlement of [...subject.mechanisms, ...subject.mechanisms])
        lives.push(await subject.mint({ entitlement }));
      const found = await listed(subject);
      const handles = found.map(({ handle }) => handle);
      assert.equal(new Set(handles).size, handles.length, 'A handle is listed twice');
      for (const { ref, entitlement } of lives) {
        const one = found.find(({ handle }) => handle === ref.handle);
        assert.ok(one !== undefined, `What lives is not listed: ${entitlement.name}`);
        assert.equal(one.grantId, ref.grantId);
        assert.equal(one.installation, subject.system.installation);
      }
      const short: Live[] = [];
      await subject.each(async (entitlement) =>
        short.push(await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement))),
      );
      await endWhole(
        subject,
        short.map(({ ref }) => ref),
      );
      await until(subject, 60_000, 'the list', async () =>
        (await listed(subject)).some(({ handle }) => short.some(({ ref }) => ref.handle === handle))
          ? 'holds what is clean'
          : null,
      );
    },
  },
  {
    name: 'list: an orphan is ended by no more than the list says of it',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const live = await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement));
        const orphan = (await listed(subject)).find(({ handle }) => handle === live.ref.handle);
        assert.ok(orphan !== undefined && orphan.grantId !== null, 'The orphan is not listed with its grant');
        const { handle, grantId, facts } = orphan;
        const ref = { handle, grantId, facts, deadline: live.ref.deadline };
        await contain(subject, [ref]);
        await assertRefused(subject, live, 'its end as an orphan');
        await endWhole(subject, [ref]);
        // By its own facts, of which the list knows but a part.
        await assertNothingLeft(subject, [live.ref]);
      }),
  },
];

/** All pages. @throws NotApplicable */
export async function listed(subject: Subject): Promise<readonly Found[]> {
  const { ender: session } = subject;
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
