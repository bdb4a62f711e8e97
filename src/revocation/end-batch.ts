import type { Claim, Claimed } from '../store/claims.ts';
import { claimClock, markContained } from '../store/claims.ts';
import type { RevocationId } from '../domain/ids.ts';
import type { Evidence } from '../domain/revocation.ts';
import { step } from '../domain/step.ts';
import { bounded } from '../domain/within.ts';
import { ProviderError, type Session } from '../provider.ts';
import { askEach } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';
import { awaitsExpiry, countSilent, type Failures, failureOfAll, recordFailures } from './failures.ts';
import { asWriter } from './fence-writer.ts';
import { tellingHang } from './hanging.ts';
import { CLEANING_LEASE_SECONDS, Heartbeat, LEFT_MILLIS } from './heartbeat.ts';
import { look, notYet, sift, toRef } from './looking.ts';
import { secondsUntil } from './not-before.ts';
import { withoutReturned } from './returned.ts';

const LIST_SECONDS = 15;

/** What is contained, and the session on which it was seen to be. */
export interface Ended {
  readonly item: Claimed;
  readonly session: Session;
  /** Until when its claim holds at the least, by `performance.now()`. */
  readonly heldUntil: number;
}

export interface BatchOutcome {
  /** What is contained now and left to be cleaned, still under its claim. */
  readonly contained: readonly Ended[];
  /** How many items tell of the target's health, and to how many of them it said nothing. */
  readonly asked: number;
  readonly silent: number;
}

interface Run {
  readonly deps: RevocationDeps;
  readonly claim: Claim;
  readonly signal: AbortSignal;
}

/**
 * Cuts what was claimed: fence → verify → contained, and the grants are `revoked`. Each outcome is recorded only while its claim
 * is still ours. What fails is due again later; nothing is ever given up. What was contained by an earlier claim and could not
 * be cleaned is looked at first and fenced again: a target that was restored may have brought it back.
 */
export async function endBatch(deps: RevocationDeps, claim: Claim): Promise<BatchOutcome> {
  const known = claim.items.filter(({ facts }) => facts !== null);
  const lost = claim.items.filter(({ facts }) => facts === null);
  const parts = [...(known.length === 0 ? [] : [known]), ...byRevision(lost)];
  const outcomes = await Promise.all(parts.map((items) => endPart(deps, claim, items)));
  return {
    contained: outcomes.flatMap(({ contained }) => contained),
    asked: outcomes.reduce((sum, { asked }) => sum + asked, 0),
    silent: outcomes.reduce((sum, { silent }) => sum + silent, 0),
  };
}

/**
 * Where a target's connection was changed since a grant was decided, what could not be ended at one place is tried at once at
 * the other one. The active definition comes first, since the old address may be dead, and facts tell another system from
 * theirs; for what lost its facts, the one that it was granted by, since only there "absent" means anything.
 */
async function endPart(deps: RevocationDeps, claim: Claim, items: readonly Claimed[]): Promise<BatchOutcome> {
  const heartbeat = new Heartbeat(deps, items);
  const failures: Failures = new Map();
  const run: Run = { deps, claim, signal: heartbeat.signal };
  try {
    const lost = items.some(({ facts }) => facts === null);
    const first = await endAt(run, items, failures, () => openSession(deps, claim.target, items, lost));
    const left = byRevision(items.filter(({ id }) => failures.has(id)));
    const elsewhere = await Promise.all(left.map((some) => endElsewhere(run, some, failures, lost)));
    await recordFailures(deps, claim.target, items, failures, () => claimClock(claim));
    const contained = [...first, ...elsewhere.flat()];
    // A batch that was called off because its claim was lost says nothing about the target.
    return heartbeat.signal.aborted
      ? { contained, asked: 0, silent: 0 }
      : { contained, asked: items.length, silent: countSilent(items, failures) };
  } finally {
    heartbeat.stop();
  }
}

/** All of them on one session. What does not go through is among the failures afterwards. */
async function endAt(
  { deps, claim, signal }: Run,
  given: readonly Claimed[],
  failures: Failures,
  open: () => Promise<Session>,
): Promise<readonly Ended[]> {
  let items = given;
  try {
    const session = await open();
    items = await withoutReturned(deps, claim.target, session, given, signal);
    if (items.length === 0) return [];
    step('fence.before');
    const outcomes = await asWriter(deps, session, claim.target, items, signal, (view) =>
      askEach(items.map(toRef), signal, (refs, limited) => session.fence(refs, limited, view)),
    );
    step('fence.after');
    const fenced = sift(items, outcomes, failures);
    items.forEach((item, index) => {
      const seconds = secondsUntil(outcomes[index]?.notBefore);
      if (!fenced.has(item) || seconds === 0) return;
      fenced.delete(item);
      failures.set(item.id, { ...notYet('it ends by itself'), endsIn: seconds });
    });
    step('verify-contained.before');
    const seen = await look(deps, session, [...fenced.keys()], failures, signal, 'contained');
    step('verify-contained.after');
    const unseen = [...fenced.keys()]
      .filter(({ id }) => !seen.has(id))
      .filter((item) => !awaitsExpiry(item, claimClock(claim)));
    if (unseen.length > 0) deps.observer.notSeen(claim.target, unseen.length);
    const now = performance.now();
    const fresh = await contain(deps, claim, fenced, seen);
    const earlier = items.filter((item) => item.contained && seen.has(item.id));
    const held = (ended: readonly Claimed[], millis: number) =>
      ended.map((item) => ({ item, session, heldUntil: now + millis }));
    return [...held(fresh, CLEANING_LEASE_SECONDS * 1000), ...held(earlier, LEFT_MILLIS)];
  } catch (error) {
    // The target as a whole, or the store: every item is tried again.
    deps.log({ target: claim.target, claim: String(claim.number), error }, 'a batch of revocations failed');
    for (const item of items) failures.set(item.id, failureOfAll(error));
    return [];
  }
}

/** Items of one revision that failed at the place of their first try. Where there is no other place, they stay as they are. */
async function endElsewhere(
  run: Run,
  items: readonly Claimed[],
  failures: Failures,
  lost: boolean,
): Promise<readonly Ended[]> {
  const { deps, claim, signal } = run;
  const again: Failures = new Map();
  let ended: readonly Ended[];
  try {
    const other = await openSession(deps, claim.target, items, !lost);
    if (other === (await openSession(deps, claim.target, items, lost))) return [];
    const there = lost ? await recognise(other, items, again, signal) : items;
    ended = there.length === 0 ? [] : await endAt(run, there, again, async () => other);
  } catch (error) {
    deps.log({ target: claim.target, claim: String(claim.number), error }, 'the other address can not be tried');
    return [];
  }
  for (const { id } of items) {
    const [first, second] = [failures.get(id), again.get(id)];
    if (second === undefined) failures.delete(id);
    else if (first !== undefined) failures.set(id, { ...first, says: `${first.says}; elsewhere: ${second.says}` });
  }
  return ended;
}

/** Those of whom the place itself shows that they are there, with what it says of them. Absence proves nothing there. */
async function recognise(
  session: Session,
  items: readonly Claimed[],
  failures: Failures,
  signal: AbortSignal,
): Promise<readonly Claimed[]> {
  const listed = await bounded(LIST_SECONDS * 1000, [signal], async (limited) => await session.list?.(limited));
  const found = new Map(listed?.map(({ handle, facts }) => [handle, facts]));
  return items.flatMap((item) => {
    const facts = found.get(item.handle);
    if (facts !== undefined) return [{ ...item, facts }];
    failures.set(item.id, notYet('it is not there, which proves nothing'));
    return [];
  });
}

export function byRevision(items: readonly Claimed[]): (readonly Claimed[])[] {
  const parts = new Map<number, Claimed[]>();
  for (const item of items) parts.set(item.decidedRevision, [...(parts.get(item.decidedRevision) ?? []), item]);
  return [...parts.values()];
}

/** The session of a target as it is, or as it was when these, of one revision, were granted. @throws ProviderError */
export async function openSession(
  deps: RevocationDeps,
  target: string,
  items: readonly Claimed[],
  asGranted: boolean,
): Promise<Session> {
  const [first] = items;
  try {
    if (first === undefined) throw new Error('There is nothing to end.');
    return deps.session(await deps.targetAt(target, first.decidedRevision, asGranted));
  } catch (cause) {
    throw cause instanceof ProviderError
      ? cause
      : new ProviderError('misconfigured', `Target ${target} can not be opened.`, { cause });
  }
}

/** Only what `verify` saw is called contained. */
async function contain(
  deps: RevocationDeps,
  claim: Claim,
  fenced: ReadonlyMap<Claimed, Evidence>,
  seen: ReadonlyMap<RevocationId, Evidence>,
): Promise<Claimed[]> {
  const now = claimClock(claim);
  const lateSeconds = (item: Claimed) => Math.max(0, (now.getTime() - item.dueAt.getTime()) / 1000);
  const done = [...fenced].flatMap(([item, ended]) => {
    const shown = seen.get(item.id);
    if (shown === undefined || item.contained) return [];
    // What was read can not be unread, whatever is cut (DESIGN §2, 4).
    const residual = item.guarantee === 'irrevocable' ? { residual: 'value may be known' } : {};
    const evidence = { ...ended, ...shown, ...residual };
    const payload = { evidence, ...residual, late_seconds: lateSeconds(item), attempts: item.attempts };
    return [{ item, evidence, now, event: engineEvent('revocation.contained', deps, claim.target, item, payload) }];
  });
  if (done.length === 0) return [];
  step('contain.before');
  const ours = await tellingHang(deps, claim.target, () => markContained(deps.db, done, CLEANING_LEASE_SECONDS));
  step('contain.after');
  const contained = done.map(({ item }) => item).filter((item) => ours.has(item.id));
  for (const item of contained) deps.observer.contained(claim.target, item.endedBy, lateSeconds(item));
  deps.db.announce(contained.map((item) => item.taskId));
  return contained;
}
