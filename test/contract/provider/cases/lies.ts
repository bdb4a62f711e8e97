import assert from 'node:assert/strict';
import { ProviderError, type Ref, type Session, within } from '../../../../src/provider.ts';
import type { Lie } from '../driver.ts';
import { classified, contain } from '../ending.ts';
import type { Tested } from '../live.ts';
import type { Subject } from '../subject.ts';
import type { CaseOf } from './case.ts';

/** More than any of these calls sends. */
const MOST_PIECES = 24;

/** How long a call may take that is lied to. Milliseconds. */
const SIGNAL_MILLIS = 2_000;

export const lieCases: readonly CaseOf[] = [
  {
    name: 'faults: well-formed answers that are wrong, from any step on: no call takes them for an end, or for a credential',
    run: async (subject) => {
      const lies = subject.needFault('lies');
      await subject.each(async (entitlement) => {
        for (const lie of lies) {
          await looksAt(subject, entitlement, lie);
          await ends(subject, entitlement, lie);
          await mints(subject, entitlement, lie);
        }
      });
    },
  },
];

/** Does it with a session that is lied to from each piece on, until all that it sends is answered in truth. */
async function fromEachPiece(
  subject: Subject,
  lie: Lie,
  work: (session: Session, says: string) => Promise<void>,
): Promise<void> {
  for (let piece = 0; piece < MOST_PIECES; piece += 1) {
    const { way, session } = await subject.apart();
    way.lie(lie, piece);
    await work(session, `${lie.what}, from request ${piece + 1} on`);
    if (way.pieces <= piece) return;
  }
}

async function looksAt(subject: Subject, entitlement: Tested, lie: Lie): Promise<void> {
  const live = await subject.mint({ entitlement });
  await fromEachPiece(subject, lie, async (session, says) => {
    const [verdict] = await unlessThrown(session.verify([live.ref], within(SIGNAL_MILLIS)), []);
    const gone = verdict?.ok === true && verdict.contained && (await subject.uses(live));
    assert.equal(gone, false, `${says}: what works was called contained`);
    if (session.list === undefined || lie.isEmptyList === true) return;
    const found = await unlessThrown(session.list(within(SIGNAL_MILLIS)), null);
    if (found === null) return;
    const handles = found.map(({ handle }) => handle);
    assert.ok(handles.includes(live.ref.handle) || !(await subject.uses(live)), `${says}: a list lacks what lives`);
  });
  await contain(subject, [live.ref]);
}

async function ends(subject: Subject, entitlement: Tested, lie: Lie): Promise<void> {
  if (['expiry-only', 'irrevocable'].includes(entitlement.guarantee.revocation)) return;
  const refs: Ref[] = [];
  await fromEachPiece(subject, lie, async (session, says) => {
    const live = await subject.mint({ entitlement });
    refs.push(live.ref);
    const [outcome] = await unlessThrown(subject.fence([live.ref], within(SIGNAL_MILLIS), session), []);
    const works = outcome?.ok === true && (await subject.uses(live));
    assert.equal(works, false, `${says}: a fence that did nothing was called a success`);
  });
  await contain(subject, refs);
}

async function mints(subject: Subject, entitlement: Tested, lie: Lie): Promise<void> {
  const refs: Ref[] = [];
  await fromEachPiece(subject, lie, async (session, says) => {
    const ref = subject.ref(subject.lifeToClean(entitlement), session);
    refs.push(ref);
    const changes = { mintBy: new Date(subject.now() + 2 * SIGNAL_MILLIS) };
    const minting = subject.mint({ ref, entitlement, session, changes, signal: within(SIGNAL_MILLIS) });
    const live = await unlessThrown(minting, null);
    if (live === null) return;
    const works = await subject.uses(live).catch(() => false);
    // A short life may have ended while it was tried.
    if (subject.now() >= ref.deadline.getTime()) return;
    assert.equal(works, true, `${says}: a mint answered what is no credential`);
  });
  await contain(subject, refs);
}

/** @throws what is no ProviderError, unless the call was ended by its signal. */
async function unlessThrown<T>(call: Promise<T>, instead: T): Promise<T> {
  try {
    return await call;
  } catch (error) {
    if (
      error instanceof ProviderError ||
      (error instanceof Error && ['TimeoutError', 'AbortError'].includes(error.name))
    )
      return instead;
    classified(error, 'a call that was lied to');
    throw error;
  }
}
