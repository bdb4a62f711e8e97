import assert from 'node:assert/strict';
import { within } from '../../../../src/provider.ts';
import type { Faults } from '../driver.ts';
import { assertRefused, classified, contain } from '../ending.ts';
import type { Tested } from '../live.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';
import { assertCheckFails, assertHonest, assertRecovers, type Came, callAll, prepareAll } from './every-call.ts';

/** How long calls may take, where they cannot be done. Milliseconds. */
const SIGNAL_MILLIS = 500;

/** More steps of an end are not cut off. */
const MOST_PIECES = 8;

export const faultCases: readonly CaseOf[] = [
  {
    name: 'faults: a target that hangs: each call ends with its signal, and succeeds later',
    run: (subject) => broken(subject, (faults) => faults.hang()),
  },
  {
    name: 'faults: a target that refuses: each call fails as retryable, and says so; it succeeds later',
    run: (subject) => broken(subject, (faults) => faults.refuse(), assertRetryable),
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
      const all = await prepareAll(subject);
      await faults.slow(20);
      const most = subject.system.callMillis ?? 30_000;
      const signal = subject.signal();
      const came = await Promise.all(all.map((on) => callAll(subject, on, signal, most + subject.graceMillis)));
      await faults.heal();
      for (const each of came.flat()) if ('threw' in each) throw each.threw;
      for (const [index, on] of all.entries()) {
        await assertHonest(subject, on, came[index] ?? [], signal);
        await assertRecovers(subject, on);
      }
    },
  },
  {
    name: 'faults: an end that is cut off at any of its steps is made whole when it is tried again',
    run: (subject) =>
      subject.each(async (entitlement) => {
        for (let piece = 0; piece < MOST_PIECES; piece += 1) if (!(await cutOffAt(subject, entitlement, piece))) break;
      }),
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

/** The broker dies in its fence; what is on the way arrives, or not. @returns whether the fence sent as many pieces as that. */
async function cutOffAt(subject: Subject, entitlement: Tested, piece: number): Promise<boolean> {
  const live = await subject.mint({ entitlement });
  const { way, session } = await subject.apart();
  const held = way.hold(piece);
  const fencing = subject.fence([live.ref], subject.signal(), session).then(
    () => false,
    (error: unknown) => classified(error, 'fence') === null,
  );
  const came = await Promise.race([held.reached.then(() => true), fencing]);
  if (came) way.cut();
  if (piece % 2 === 0) {
    held.release();
    if (came) await held.answered;
  }
  await contain(subject, [live.ref]);
  await assertRefused(subject, live, 'an end that was cut off once');
  return came;
}

async function broken(
  subject: Subject,
  breaks: (faults: Faults) => void | Promise<void>,
  judge: (came: readonly Came[], signal: AbortSignal) => void = () => {},
): Promise<void> {
  const faults = subject.need('faults');
  const all = await prepareAll(subject);
  await breaks(faults);
  const signal = within(SIGNAL_MILLIS);
  const came = await Promise.all(all.map((on) => callAll(subject, on, signal, SIGNAL_MILLIS + subject.graceMillis)));
  await faults.heal();
  for (const [index, on] of all.entries()) {
    const own = came[index] ?? [];
    await assertHonest(subject, on, own, signal);
    assertCheckFails(own);
    judge(own, signal);
    await assertRecovers(subject, on);
  }
}

/** Whoever could not connect says that it may be tried again: a person is not called, and nothing is given up. */
function assertRetryable(came: readonly Came[], signal: AbortSignal): void {
  const says = (name: string, error: unknown): void => {
    const { errorClass, message } = classified(error, name);
    assert.equal(errorClass, 'retryable', `${name}: what refuses connections may be tried again: ${message}`);
    assert.match(message, /\S \S/, `${name}: a refusal that says nothing`);
  };
  for (const each of came) {
    if ('threw' in each && each.threw !== signal.reason) says(each.name, each.threw);
    if (!('answered' in each) || !['fence', 'verify', 'reap'].includes(each.name) || !Array.isArray(each.answered))
      continue;
    for (const answer of each.answered) if (answer.ok === false) says(each.name, answer.error);
  }
  const mint = came.find(({ name }) => name === 'mint');
  assert.ok(mint !== undefined && 'threw' in mint, 'A mint without a target answered a credential');
}
