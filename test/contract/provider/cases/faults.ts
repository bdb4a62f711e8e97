import assert from 'node:assert/strict';
import { within } from '../../../../src/provider.ts';
import type { Faults } from '../driver.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { assertCheckFails, assertHonest, assertRecovers, callAll, prepare } from './every-call.ts';

/** How long calls may take, where they cannot be done. Milliseconds. */
const SIGNAL_MILLIS = 800;

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
