import type { RevocationId } from '../domain/ids.ts';
import type { ErrorClass, Evidence } from '../domain/revocation.ts';
import { ProviderError, type Session } from '../provider.ts';
import { type Claim, claimClock, type Claimed, markContained } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';
import { recordFailures } from './failures.ts';
import { Heartbeat, LEASE_SECONDS } from './heartbeat.ts';
import { callSignal, classOf, look, toRef } from './looking.ts';

/**
 * Cuts what was claimed: fence → verify → contained, and the grants are `revoked`. Each outcome is recorded only while its claim
 * is still ours. What fails is due again later; nothing is ever given up.
 * @returns what is contained now and left to be cleaned, still under its claim.
 */
export async function endBatch(deps: RevocationDeps, claim: Claim): Promise<readonly Claimed[]> {
  const fresh = claim.items.filter((item) => !item.contained);
  const earlier = claim.items.filter((item) => item.contained);
  if (fresh.length === 0) return earlier;
  const heartbeat = new Heartbeat(deps, () => fresh);
  const clock = () => claimClock(claim);
  try {
    const session = await openSession(deps, claim.target, fresh);
    const failures = new Map<RevocationId, ErrorClass>();
    const fenced = await fence(session, fresh, failures, heartbeat.signal);
    const seen = await look(session, fenced, failures, heartbeat.signal, 'contained');
    const contained = await contain(deps, claim, fenced, seen);
    await recordFailures(deps, claim.target, fresh, failures, clock);
    return [...contained, ...earlier];
  } catch (error) {
    // The target as a whole, or the store: every item is tried again.
    deps.log({ target: claim.target, claim: String(claim.number), error }, 'a batch of revocations failed');
    await recordFailures(deps, claim.target, fresh, new Map(fresh.map((item) => [item.id, classOf(error)])), clock);
    return earlier;
  } finally {
    heartbeat.stop();
  }
}

/** The session of a target as it is, or as it was when these were granted. */
export async function openSession(deps: RevocationDeps, target: string, items: readonly Claimed[]): Promise<Session> {
  const revision = Math.max(...items.map((item) => item.decidedRevision));
  try {
    return deps.session(await deps.targetAt(target, revision));
  } catch (cause) {
    throw cause instanceof ProviderError
      ? cause
      : new ProviderError('misconfigured', `Target ${target} can not be opened.`, { cause });
  }
}

async function fence(
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
): Promise<Claimed[]> {
  const outcomes = await session.fence(items.map(toRef), callSignal(signal));
  return items.filter((item, index) => {
    const outcome = outcomes[index];
    if (outcome?.ok === true) return true;
    failures.set(item.id, outcome === undefined ? 'retryable' : outcome.error.errorClass);
    return false;
  });
}

/** Only what `verify` saw is called contained. */
async function contain(
  deps: RevocationDeps,
  claim: Claim,
  items: readonly Claimed[],
  seen: ReadonlyMap<RevocationId, Evidence>,
): Promise<Claimed[]> {
  if (seen.size === 0) return [];
  const now = claimClock(claim);
  const lateSeconds = (item: Claimed) => Math.max(0, (now.getTime() - item.dueAt.getTime()) / 1000);
  const done = items.flatMap((item) => {
    const evidence = seen.get(item.id);
    if (evidence === undefined) return [];
    const payload = { evidence, late_seconds: lateSeconds(item), attempts: item.attempts };
    return [{ item, evidence, now, event: engineEvent('revocation.contained', deps, claim.target, item, payload) }];
  });
  const ours = await markContained(deps.db, done, LEASE_SECONDS);
  const contained = items.filter((item) => ours.has(item.id));
  for (const item of contained) deps.observer.contained(claim.target, item.endedBy, lateSeconds(item));
  deps.db.announce(contained.map((item) => item.taskId));
  return contained;
}
