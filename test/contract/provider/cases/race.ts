import { assertRefused, classified, contain } from '../ending.ts';
import { NotApplicable } from '../not-applicable.ts';
import type { Live, Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More than any mint sends. */
const MOST_PIECES = 16;

/** How long it must stay as it is to be believed. Milliseconds. */
const STAYS_MILLIS = 300;

export const raceCases: readonly CaseOf[] = [
  {
    name: 'race: a mint after its fence creates nothing that works',
    run: async (subject) => {
      endsEarly(subject);
      const ref = subject.ref();
      await contain(subject, [ref]);
      const late = await subject.mint({ ref }).catch((error: unknown) => void classified(error, 'mint'));
      if (late !== undefined) await assertRefused(subject, late, 'a fence that came before its mint');
      await contain(subject, [late?.ref ?? ref]);
    },
  },
  {
    name: 'race: mint and fence at once: what is contained does not work, and stays so',
    run: async (subject) => {
      endsEarly(subject);
      await Promise.all([0, 0, 1, 2, 5, 10].map((lead) => atOnce(subject, lead)));
    },
  },
  {
    name: 'race: a mint held up on its way past its fence creates nothing that works',
    run: async (subject) => {
      endsEarly(subject);
      for (let piece = 0; piece < MOST_PIECES; piece += 1) if (!(await heldAt(subject, piece))) break;
    },
  },
];

/** @returns whether the mint sent as many pieces as that. */
async function heldAt(subject: Subject, piece: number): Promise<boolean> {
  const hold = subject.needFault('hold');
  const ref = subject.ref();
  const held = hold.call(subject.need('faults'), piece);
  const minting = settled(subject.mint({ ref, changes: { mintBy: new Date(subject.now() + 5_000) } }));
  const came = await Promise.race([held.reached.then(() => true), minting.then(() => false)]);
  // It may have to wait for the mint, where nothing else can be sure.
  const fencing = contain(subject, [ref]).then(() => true);
  const overtook = await Promise.race([fencing, new Promise<false>((resolve) => setTimeout(resolve, 1_000, false))]);
  held.release();
  const minted = await minting;
  await fencing;
  if (minted !== undefined && overtook) await assertRefused(subject, minted, 'an end that overtook its mint');
  await contain(subject, [minted?.ref ?? ref]);
  if (minted !== undefined) await assertRefused(subject, minted, 'its end');
  await subject.system.faults?.heal();
  return came;
}

async function atOnce(subject: Subject, lead: number): Promise<void> {
  const ref = subject.ref();
  const minting = settled(subject.mint({ ref, changes: { mintBy: new Date(subject.now() + 5_000) } }));
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

async function settled(minting: Promise<Live>): Promise<Live | undefined> {
  return await minting.catch((error: unknown) => void classified(error, 'mint'));
}

function endsEarly({ first }: Subject): void {
  if (first.guarantee.revocation === 'expiry-only')
    throw new NotApplicable('it says `expiry-only`: a fence stops no mint');
}
