import type { Claim, Claimed } from '../store/claims.ts';
import { claimClock, markContained } from '../store/claims.ts';
import type { RevocationId } from '../domain/ids.ts';
import type { Evidence } from '../domain/revocation.ts';
import { step } from '../domain/step.ts';
import { ProviderError, type Session } from '../provider.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';
import { type Failures, failureOf, recordFailures } from './failures.ts';
import { Heartbeat, LEASE_SECONDS } from './heartbeat.ts';
import { callSignal, look, sift, toRef } from './looking.ts';

/**
 * Cuts what was claimed: fence → verify → contained, and the grants are `revoked`. Each outcome is recorded only while its claim
 * is still ours. What fails is due again later; nothing is ever given up. What was contained by an earlier claim and could not
 * be cleaned is fenced again: a target that was restored may have brought it back.
 * @returns what is contained now and left to be cleaned, still under its claim.
 */
export async function endBatch(deps: RevocationDeps, claim: Claim): Promise<readonly Claimed[]> {
  const parts = await Promise.all(partsOf(claim).map((items) => endPart(deps, claim, items)));
  return parts.flat();
}

/**
 * Items that are ended on the same definition of the target: the active one, or the one that was in force when they were granted.
 * That one is used for what lost its facts, since only there "absent" means anything, and in turn with the active one for what
 * keeps failing, since the target's address may have come to lead elsewhere.
 */
function partsOf(claim: Claim): Claimed[][] {
  const parts = new Map<number | null, Claimed[]>();
  for (const item of claim.items) {
    const revision = grantedRevision(item);
    parts.set(revision, [...(parts.get(revision) ?? []), item]);
  }
  return [...parts.values()];
}

/** The revision whose definition of the target is to be used; null for the active one. */
function grantedRevision(item: Claimed): number | null {
  return item.facts === null || item.attempts % 4 === 0 ? item.decidedRevision : null;
}

async function endPart(deps: RevocationDeps, claim: Claim, items: readonly Claimed[]): Promise<readonly Claimed[]> {
  const heartbeat = new Heartbeat(deps, items);
  const failures: Failures = new Map();
  const clock = () => claimClock(claim);
  try {
    const session = await openSession(deps, claim.target, items);
    step('fence.before');
    const outcomes = await session.fence(items.map(toRef), callSignal(heartbeat.signal));
    step('fence.after');
    const fenced = sift(items, outcomes, failures);
    step('verify-contained.before');
    const seen = await look(session, [...fenced.keys()], failures, heartbeat.signal, 'contained');
    step('verify-contained.after');
    const fresh = await contain(deps, claim, fenced, seen);
    const earlier = items.filter((item) => item.contained && seen.has(item.id));
    await recordFailures(deps, claim.target, items, failures, clock);
    return [...fresh, ...earlier];
  } catch (error) {
    // The target as a whole, or the store: every item is tried again.
    deps.log({ target: claim.target, claim: String(claim.number), error }, 'a batch of revocations failed');
    for (const item of items) failures.set(item.id, failureOf(error));
    await recordFailures(deps, claim.target, items, failures, clock);
    return [];
  } finally {
    heartbeat.stop();
  }
}

/** The session of a target as it is, or as it was when these were granted. */
export async function openSession(deps: RevocationDeps, target: string, items: readonly Claimed[]): Promise<Session> {
  const [first] = items;
  try {
    if (first === undefined) throw new Error('There is nothing to end.');
    const asGranted = grantedRevision(first) !== null;
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
    const evidence = { ...ended, ...shown };
    const payload = { evidence, late_seconds: lateSeconds(item), attempts: item.attempts };
    return [{ item, evidence, now, event: engineEvent('revocation.contained', deps, claim.target, item, payload) }];
  });
  if (done.length === 0) return [];
  step('contain.before');
  const ours = await markContained(deps.db, done, LEASE_SECONDS);
  step('contain.after');
  const contained = done.map(({ item }) => item).filter((item) => ours.has(item.id));
  for (const item of contained) deps.observer.contained(claim.target, item.endedBy, lateSeconds(item));
  deps.db.announce(contained.map((item) => item.taskId));
  return contained;
}
