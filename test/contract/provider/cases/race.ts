import { type Ref, within } from '../../../../src/provider.ts';
import type { Held } from '../driver.ts';
import { assertRefused, classified, contain, endWhole } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More than any mint sends. */
const MOST_PIECES = 32;

/** How long it must stay as it is to be believed. Milliseconds. */
const STAYS_MILLIS = 300;

/** How long a mint may take to take effect, in these cases. Milliseconds. */
const MINT_MILLIS = 5_000;

/** How long an end is waited for while its mint is held: it may have to wait for that, where nothing else can be sure. Milliseconds. */
const OVERTAKES_MILLIS = 1_000;

export const raceCases: readonly CaseOf[] = [
  {
    name: 'race: a mint after its fence creates nothing that works',
    run: (subject) =>
      subject.each(async (entitlement) => {
        const ref = subject.ref();
        await contain(subject, [ref]);
        const late = await subject.mint({ ref, entitlement }).catch((error: unknown) => void classified(error, 'mint'));
        if (late !== undefined) await assertRefused(subject, late, 'a fence that came before its mint');
        await contain(subject, [late?.ref ?? ref]);
      }, endingEarly(subject)),
  },
  {
    name: 'race: mint and fence at once: what is contained does not work, and stays so',
    run: (subject) =>
      subject.each(
        (entitlement) => Promise.all([0, 0, 1, 2, 5, 10].map((lead) => atOnce(subject, entitlement, lead))),
        endingEarly(subject),
      ),
  },
  {
    name: 'race: a mint held up on its way past its fence creates nothing that works',
    run: (subject) =>
      subject.each(async (entitlement) => {
        for (let piece = 0; piece < MOST_PIECES; piece += 1) {
          const { way, session } = await subject.apart();
          const ref = subject.ref(undefined, session);
          const changes = { mintBy: new Date(subject.now() + MINT_MILLIS) };
          const held = way.hold(piece);
          const minting = settled(subject.mint({ ref, entitlement, session, changes }));
          if (!(await overtaken(subject, { ref, held, minting }))) break;
        }
      }, endingEarly(subject)),
  },
  {
    name: 'race: a mint that the system itself is held up in, past its fence, leaves nothing that works',
    run: async (subject) => {
      const behind = subject.need('behind');
      for (const entitlement of endingEarly(subject)) {
        for (let piece = 0; piece < MOST_PIECES; piece += 1) {
          const ref = subject.ref();
          const held = behind.hold(piece);
          const minting = settled(subject.mint({ ref, entitlement }));
          if (!(await overtaken(subject, { ref, held, minting }))) break;
        }
      }
    },
  },
  {
    name: 'crash: a mint given up, or its broker killed, while the system still works on it: its end leaves nothing',
    run: async (subject) => {
      const behind = subject.need('behind');
      for (const entitlement of endingEarly(subject)) {
        for (let piece = 0; piece < MOST_PIECES; piece += 1) {
          const came = [
            await lostBehind(subject, entitlement, behind.hold(piece), 'given up'),
            await lostBehind(subject, entitlement, behind.hold(piece), 'killed'),
          ];
          if (!came.includes(true)) break;
        }
      }
      return { leftBehind: 0 };
    },
  },
];

interface Overtaken {
  readonly ref: Ref;
  readonly held: Held;
  readonly minting: Promise<Live | undefined>;
}

/** @returns whether the mint sent as much as that. */
async function overtaken(subject: Subject, { ref, held, minting }: Overtaken): Promise<boolean> {
  const came = await Promise.race([held.reached.then(() => true), minting.then(() => false)]);
  const fencing = contain(subject, [ref]).then(() => true);
  const overtook = await Promise.race([
    fencing,
    new Promise<false>((done) => setTimeout(done, OVERTAKES_MILLIS, false)),
  ]);
  held.release();
  const minted = await minting;
  await fencing;
  if (minted !== undefined && overtook) await assertRefused(subject, minted, 'an end that overtook its mint');
  await contain(subject, [minted?.ref ?? ref]);
  if (minted !== undefined) await assertRefused(subject, minted, 'its end');
  return came;
}

/** Nobody waits for it any more, and then the system goes on with it. @returns whether it was held. */
async function lostBehind(
  subject: Subject,
  entitlement: Tested,
  held: Held,
  how: 'given up' | 'killed',
): Promise<boolean> {
  const { way, session } = await subject.apart();
  const ref = subject.ref(subject.lifeToClean(entitlement), session);
  const changes = { mintBy: new Date(subject.now() + MINT_MILLIS) };
  const signal = how === 'killed' ? subject.signal() : within(STAYS_MILLIS);
  const minting = settled(subject.mint({ ref, entitlement, session, changes, signal }), signal);
  const came = await Promise.race([held.reached.then(() => true), minting.then(() => false)]);
  if (how === 'killed') way.cut();
  const over = how === 'killed' ? Promise.resolve(undefined) : minting;
  const ending = over.then((minted) => contain(subject, [minted?.ref ?? ref]));
  await Promise.race([ending, new Promise((done) => setTimeout(done, STAYS_MILLIS + OVERTAKES_MILLIS))]);
  held.release();
  if (came) await held.answered;
  await ending;
  await endWhole(subject, [ref]);
  return came;
}

async function atOnce(subject: Subject, entitlement: Tested, lead: number): Promise<void> {
  const ref = subject.ref();
  const changes = { mintBy: new Date(subject.now() + MINT_MILLIS) };
  const minting = settled(subject.mint({ ref, entitlement, changes }));
  await new Promise((resolve) => setTimeout(resolve, lead));
  await contain(subject, [ref]);
  const minted = await minting;
  // The broker knows that the mint is over, and asks again.
  await contain(subject, [minted?.ref ?? ref]);
  if (minted === undefined) return;
  await assertRefused(subject, minted, 'a fence at the same time');
  await subject.pass(STAYS_MILLIS);
  await assertRefused(subject, minted, 'a fence at the same time, a while later');
}

async function settled(minting: Promise<Live>, signal?: AbortSignal): Promise<Live | undefined> {
  return await minting.catch((error: unknown) => {
    if (signal === undefined || error !== signal.reason) classified(error, 'mint');
    return undefined;
  });
}

function endingEarly({ mechanisms }: Subject): readonly Tested[] {
  const early = mechanisms.filter(({ guarantee }) => guarantee.revocation !== 'expiry-only');
  if (early.length === 0) throw new NotApplicable('it says `expiry-only`: a fence stops no mint');
  return early;
}
