import assert from 'node:assert/strict';
import type { Ref } from '../../../../src/provider.ts';
import type { Held } from '../driver.ts';
import { assertNothingLeft, assertRefused, clean, contain, endWhole } from '../ending.ts';
import type { Live, Tested } from '../live.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More than any mint sends. */
const MOST_PIECES = 32;

/** How long a mint may take to take effect, in these cases. Milliseconds. */
const MINT_MILLIS = 5_000;

/** How long an end is waited for while a piece of its mint is held: it may have to wait for that. Milliseconds. */
const OVERTAKES_MILLIS = 1_000;

export const crashCases: readonly CaseOf[] = [
  {
    name: 'crash: intended and never minted, its end leaves nothing',
    run: async (subject) => {
      await endWhole(
        subject,
        subject.mechanisms.map((entitlement) => subject.ref(subject.lifeToClean(entitlement))),
      );
      return { leftBehind: 0 };
    },
  },
  {
    name: 'crash: killed at each step of a mint, its end without facts leaves nothing',
    run: async (subject) => {
      const refs: Ref[] = [];
      await subject.each(async (entitlement) => {
        const killed = await killedAtEach(subject, entitlement);
        for (const { held } of killed) held.release();
        await Promise.all(killed.map(({ held }) => held.answered));
        refs.push(...killed.map(({ ref }) => ref));
      });
      await endWhole(subject, refs);
      return { leftBehind: 0 };
    },
  },
  {
    name: 'crash: killed at each step of a mint, what it sent arrives after its end and makes nothing that stays',
    run: async (subject) => {
      await subject.each(async (entitlement) => {
        const killed = await killedAtEach(subject, entitlement);
        const contained = new Set<Ref>();
        const ending = killed.map(({ ref }) => contain(subject, [ref]).then(() => contained.add(ref)));
        await Promise.race([Promise.all(ending), new Promise((done) => setTimeout(done, OVERTAKES_MILLIS))]);
        const overtaken = [...contained];
        for (const { held } of killed) held.release();
        await Promise.all(killed.map(({ held }) => held.answered));
        await Promise.all(ending);
        // What was called contained is not asked for again: it must be so.
        await clean(subject, overtaken);
        await assertNothingLeft(subject, overtaken);
        await endWhole(
          subject,
          killed.map(({ ref }) => ref),
        );
      });
      return { leftBehind: 0 };
    },
  },
  {
    name: 'crash: minted and the answer lost, its end without facts leaves nothing and nobody in',
    run: async (subject) => {
      const lives: Live[] = [];
      for (const entitlement of subject.tested) {
        lives.push(await subject.mintBriefly({ entitlement }, subject.lifeToClean(entitlement)));
      }
      const lost = lives.map(({ ref }) => ({ ...ref, facts: null }));
      await contain(subject, lost);
      for (const live of lives) await assertRefused(subject, live, 'an end without facts');
      await endWhole(subject, lost);
      await assertNothingLeft(
        subject,
        lives.map(({ ref }) => ref),
      );
      return { leftBehind: 0 };
    },
  },
];

interface Killed {
  readonly ref: Ref;
  readonly held: Held;
}

/** Brokers that die, each with another piece of a mint on its way: nothing of what follows is done, and no answer is known. */
async function killedAtEach(subject: Subject, entitlement: Tested): Promise<readonly Killed[]> {
  const killed: Killed[] = [];
  for (let piece = 0; piece < MOST_PIECES; piece += 1) {
    const { way, session } = await subject.apart();
    const ref = subject.ref(subject.lifeToClean(entitlement), session);
    const held = way.hold(piece);
    const changes = { mintBy: new Date(subject.now() + MINT_MILLIS) };
    const minting = subject.mint({ ref, entitlement, session, changes }).then(() => false);
    // What a broker says that is dead, nobody hears.
    minting.catch(() => {});
    const reached = await Promise.race([held.reached.then(() => true), minting]);
    if (!reached) break;
    way.cut();
    killed.push({ ref, held });
  }
  assert.ok(killed.length > 0, 'Nothing that a mint sends came by');
  return killed;
}
