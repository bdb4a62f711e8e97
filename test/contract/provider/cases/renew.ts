import assert from 'node:assert/strict';
import type { Renewed } from '../../../../src/provider.ts';
import { assertRefused, classified, contain, until } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import { reveal } from '../notes.ts';
import type { Live } from '../live.ts';
import { SKEW_MILLIS, type Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

export const renewCases: readonly CaseOf[] = [
  {
    name: 'renew: the end moves, and it works past the old one',
    run: async (subject) => {
      const { live, renewed, untilThen } = await renewedInTime(subject);
      assert.ok(renewed.expiresAt > live.ref.deadline, 'Its end did not move');
      assert.ok(renewed.expiresAt.getTime() <= untilThen.getTime() + 1000, 'It moved further than asked');
      const now = asRenewed(subject, live, renewed, untilThen);
      if (subject.session.ends !== undefined) {
        const [ends] = await subject.session.ends([now.ref], subject.signal());
        const off = Math.abs((ends?.getTime() ?? 0) - renewed.expiresAt.getTime());
        assert.ok(off <= SKEW_MILLIS, '`ends` says something else than the renewal');
      }
      await subject.pass(Math.max(0, live.ref.deadline.getTime() - subject.now()) + 500);
      assert.equal(await subject.uses(now), true, 'Renewed, it does not work past its old deadline');
      await contain(subject, [now.ref]);
      await assertRefused(subject, now, 'its end after a renewal');
      await assertRefused(subject, live, 'its end after a renewal');
    },
  },
  {
    name: 'renew: never past the notAfter of its mint',
    run: async (subject) => {
      const renew = renewOf(subject);
      const life = Math.max(30_000, subject.lifeToClean(subject.first));
      const notAfter = new Date(subject.now() + life + 10_000);
      const live = await subject.mint({ lifeMillis: life, changes: { notAfter } });
      const renewed = await renew(live, new Date(notAfter.getTime() + 3_600_000)).catch(
        (error: unknown) => void classified(error, 'renew'),
      );
      if (renewed === undefined) return;
      assert.ok(renewed.expiresAt.getTime() <= notAfter.getTime() + 1000, 'It lives past its notAfter');
      // Ended by what it is now known by.
      await contain(subject, [{ ...live.ref, facts: renewed.facts }]);
    },
  },
  {
    name: 'renew: what is ended is not revived',
    run: async (subject) => {
      const renew = renewOf(subject);
      const live = await subject.mint();
      await contain(subject, [live.ref]);
      const renewed = await renew(live, new Date(subject.now() + 120_000)).catch(
        (error: unknown) => void classified(error, 'renew'),
      );
      await assertRefused(subject, live, 'its end and a renewal');
      if (renewed === undefined) return;
      const revived = asRenewed(subject, live, renewed, renewed.expiresAt);
      await assertRefused(subject, revived, 'its end and a renewal');
      await contain(subject, [revived.ref]);
    },
  },
  {
    name: 'looks: a fresh credential has not drifted, its sessions are seen, and nothing is changed by looking',
    run: async (subject) => {
      const { session, first } = subject;
      if (session.inspect === undefined && session.observe === undefined)
        throw new NotApplicable('the provider has neither `inspect` nor `observe`');
      const live = await subject.mint();
      const [inspection] = (await session.inspect?.([{ ...live.ref, config: first.config }], subject.signal())) ?? [];
      if (session.inspect !== undefined) assert.deepEqual(inspection, { ok: true, drift: [] });
      if (session.observe !== undefined) {
        const idle = await session.observe([live.ref], subject.signal());
        assert.equal(idle.length, 1);
        const open = await subject.system.open?.(live.credential, first.name);
        try {
          if (open !== undefined) {
            await until(subject, 60_000, 'its open session', async () => {
              const [use] = (await session.observe?.([live.ref], subject.signal())) ?? [];
              return use?.ok === true && use.total > 0 && use.sessions.length > 0 ? null : 'is not seen';
            });
            assert.equal(await open.works(), 'works', 'Looking has ended its session');
          }
        } finally {
          await open?.close();
        }
      }
      assert.equal(await subject.uses(live), true, 'Looking has ended it');
    },
  },
];

/** A short life that was renewed before it was over: on a slow machine, not the shortest. */
async function renewedInTime(subject: Subject): Promise<{ live: Live; renewed: Renewed; untilThen: Date }> {
  const renew = renewOf(subject);
  for (let longer = 1; ; longer *= 2) {
    const live = await subject.mintBriefly({}, longer * subject.shortLife(subject.first));
    const untilThen = new Date(live.ref.deadline.getTime() + 30_000);
    const renewed = await renew(live, untilThen).catch((error: unknown) => {
      if (longer === 8) throw error;
      return classified(error, 'renew');
    });
    if (!(renewed instanceof Error)) return { live, renewed, untilThen };
  }
}

function renewOf(subject: Subject): (live: Live, then: Date) => Promise<Renewed> {
  const { session } = subject;
  if (session.renew === undefined) throw new NotApplicable('the provider has no `renew`');
  return async ({ ref }, then) => {
    const renewed = await session.renew?.(ref, then, subject.signal(), subject.request(ref));
    assert.ok(renewed !== undefined);
    return renewed;
  };
}

function asRenewed(subject: Subject, live: Live, { secret, facts }: Renewed, deadline: Date): Live {
  const credential = secret === undefined ? live.credential : reveal(secret);
  for (const value of subject.system.secretsOf(credential)) subject.notes.mustHide(value);
  return { ...live, credential, ref: { ...live.ref, facts, deadline } };
}
