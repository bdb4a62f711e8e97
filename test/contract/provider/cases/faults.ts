import assert from 'node:assert/strict';
import { within } from '../../../../src/provider.ts';
import type { Faults } from '../driver.ts';
import { assertRefused, classified, contain } from '../ending.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { assertCheckFails, assertHonest, assertRecovers, callAll, prepare } from './every-call.ts';

/** How long calls may take, where they cannot be done. Milliseconds. */
const SIGNAL_MILLIS = 800;

/** The same, where it is asked again and again. */
const CUT_MILLIS = 300;

/** More steps of an end are not cut off. */
const MOST_PIECES = 5;

export const faultCases: readonly CaseOf[] = [
  {
    name: 'faults: a target that hangs: each call ends with its signal, and succeeds later',
    run: (subject) => broken(subject, (faults) => faults.hang()),
  },
  {
    name: 'faults: a target that refuses: each call fails as retryable, and succeeds later',
    run: (subject) => broken(subject, (faults) => faults.refuse()),
  },
  {
    name: 'faults: answers that come too late: what took effect is found and ended',
    run: (subject) => broken(subject, (faults) => faults.slow(2 * SIGNAL_MILLIS)),
  },
  {
    name: 'faults: answers that are nonsense: no call takes them for a success',
    run: async (subject) => {
      const garble = subject.needFault('garble');
      await broken(subject, (faults) => garble.call(faults));
    },
  },
  {
    name: 'faults: a slow target: each call succeeds, slowly',
    run: async (subject) => {
      const faults = subject.need('faults');
      const on = await prepare(subject);
      await faults.slow(20);
      const most = subject.system.callMillis ?? 30_000;
      const signal = subject.signal();
      const came = await callAll(subject, on, signal, most + subject.graceMillis);
      await faults.heal();
      for (const each of came) if ('threw' in each) throw each.threw;
      await assertHonest(subject, on, came, signal);
      await assertRecovers(subject, on);
    },
  },
  {
    name: 'faults: an end that is cut off at any of its steps is made whole when it is tried again',
    run: async (subject) => {
      for (let piece = 0; piece < MOST_PIECES; piece += 1) if (!(await cutOffAt(subject, piece))) break;
    },
  },
  {
    name: 'faults: connecting touches nothing: it succeeds while the target hangs, and closing does not wait for it',
    run: async (subject) => {
      const faults = subject.need('faults');
      await faults.hang();
      try {
        const session = subject.connect();
        const signal = within(SIGNAL_MILLIS);
        const asked = session.verify([subject.ref()], signal).catch(() => null);
        const began = Date.now();
        await session.close();
        assert.ok(Date.now() - began < subject.graceMillis + SIGNAL_MILLIS, 'Closing waited for a target that hangs');
        await asked;
      } finally {
        await faults.heal();
      }
    },
  },
];

/** @returns whether the fence sent as many pieces as that. */
async function cutOffAt(subject: Subject, piece: number): Promise<boolean> {
  const hold = subject.needFault('hold');
  const live = await subject.mint();
  const held = hold.call(subject.need('faults'), piece);
  const signal = within(CUT_MILLIS);
  const fencing = subject.fence([live.ref], signal).catch((error: unknown) => {
    if (error !== signal.reason) classified(error, 'fence');
  });
  const came = await Promise.race([held.reached.then(() => true), fencing.then(() => false)]);
  await fencing;
  held.release();
  await subject.system.faults?.heal();
  await contain(subject, [live.ref]);
  await assertRefused(subject, live, 'an end that was cut off once');
  return came;
}

async function broken(subject: Subject, breaks: (faults: Faults) => void | Promise<void>): Promise<void> {
  const faults = subject.need('faults');
  const on = await prepare(subject);
  await breaks(faults);
  const signal = within(SIGNAL_MILLIS);
  const came = await callAll(subject, on, signal, SIGNAL_MILLIS + subject.graceMillis);
  await faults.heal();
  await assertHonest(subject, on, came, signal);
  assertCheckFails(came);
  await assertRecovers(subject, on);
}
