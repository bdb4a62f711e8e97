import type { RevocationId } from '../domain/ids.ts';
import { type ErrorClass, type Evidence, retryDelaySeconds } from '../domain/revocation.ts';
import { ProviderError, type Ref, type Session } from '../provider.ts';
import type { Transaction } from '../store/database.ts';
import {
  type Claim,
  type Claimed,
  extendClaim,
  type Failure,
  markClean,
  markContained,
  markFailed,
  type Progress,
} from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';

/** A claim lives this long without a heartbeat; so long does a killed worker hold up what it held. */
export const LEASE_SECONDS = 5;
const HEARTBEAT_MILLIS = 1_500;
/** One call to a target. Fencing includes the sweeps of live sessions. */
const CALL_SECONDS = 15;

/**
 * Ends what was claimed: fence → verify → contained (the grant is `revoked`) → reap → verify → clean. Each outcome is recorded only
 * while the claim is still ours. What fails is due again later; nothing is ever given up.
 */
export async function endBatch(deps: RevocationDeps, claim: Claim): Promise<void> {
  const heartbeat = new Heartbeat(deps, claim);
  try {
    const session = await openSession(deps, claim);
    const failures = new Map<RevocationId, ErrorClass>();
    const fresh = claim.items.filter((item) => !item.contained);
    const fenced = await fence(session, fresh, failures, heartbeat.signal);
    const contained = await contain(deps, claim, session, fenced, failures, heartbeat.signal);
    const toClean = [...contained, ...claim.items.filter((item) => item.contained)];
    await clean(deps, claim, session, toClean, failures, heartbeat.signal);
    await recordFailures(deps, claim, failures);
  } catch (error) {
    // The target as a whole, or the store: every item is tried again.
    const errorClass = classOf(error);
    deps.log({ target: claim.target, claim: String(claim.number), error }, 'a batch of revocations failed');
    await recordFailures(deps, claim, new Map(claim.items.map((item) => [item.id, errorClass])));
  } finally {
    heartbeat.stop();
  }
}

async function openSession(deps: RevocationDeps, claim: Claim): Promise<Session> {
  const revision = Math.max(...claim.items.map((item) => item.decidedRevision));
  try {
    return deps.session(await deps.targetAt(claim.target, revision));
  } catch (cause) {
    throw cause instanceof ProviderError
      ? cause
      : new ProviderError('misconfigured', `Target ${claim.target} can not be opened.`, { cause });
  }
}

async function fence(
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
): Promise<Claimed[]> {
  if (items.length === 0) return [];
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
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
): Promise<Claimed[]> {
  const seen = await look(session, items, failures, signal, 'contained');
  if (seen.size === 0) return [];
  return await deps.db.transaction({}, async (tx) => {
    const ours = await markContained(tx, claim, progressOf(seen), LEASE_SECONDS);
    const done = items.filter((item) => ours.has(item.id));
    for (const item of done) {
      const late = (tx.now.getTime() - item.dueAt.getTime()) / 1000;
      record(deps, tx, claim, item, 'revocation.contained', {
        evidence: seen.get(item.id),
        late_seconds: late,
        attempts: item.attempts,
      });
      deps.observer.contained(claim.target, item.endedBy, Math.max(0, late));
    }
    return done;
  });
}

async function clean(
  deps: RevocationDeps,
  claim: Claim,
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
): Promise<void> {
  if (items.length === 0) return;
  const outcomes = await session.reap(items.map(toRef), callSignal(signal));
  const reaped = items.filter((item, index) => {
    const outcome = outcomes[index];
    if (outcome?.ok === true && outcome.notBefore === undefined) return true;
    failures.set(item.id, outcome?.ok === false ? outcome.error.errorClass : 'retryable');
    return false;
  });
  const seen = await look(session, reaped, failures, signal, 'clean');
  if (seen.size === 0) return;
  await deps.db.transaction({}, async (tx) => {
    const ours = await markClean(tx, claim, progressOf(seen));
    for (const item of reaped) {
      if (ours.has(item.id)) record(deps, tx, claim, item, 'revocation.clean', { evidence: seen.get(item.id) });
    }
  });
}

/** What the target itself shows to be contained or clean, with the evidence. */
async function look(
  session: Session,
  items: readonly Claimed[],
  failures: Map<RevocationId, ErrorClass>,
  signal: AbortSignal,
  wanted: 'contained' | 'clean',
): Promise<Map<RevocationId, Evidence>> {
  const seen = new Map<RevocationId, Evidence>();
  if (items.length === 0) return seen;
  const verdicts = await session.verify(items.map(toRef), callSignal(signal));
  items.forEach((item, index) => {
    const verdict = verdicts[index];
    if (verdict?.ok === true && verdict[wanted]) seen.set(item.id, verdict.evidence);
    else failures.set(item.id, verdict?.ok === false ? verdict.error.errorClass : 'retryable');
  });
  return seen;
}

async function recordFailures(
  deps: RevocationDeps,
  claim: Claim,
  failures: ReadonlyMap<RevocationId, ErrorClass>,
): Promise<void> {
  if (failures.size === 0) return;
  const rows: Failure[] = claim.items.flatMap((item) => {
    const errorClass = failures.get(item.id);
    return errorClass === undefined
      ? []
      : [{ id: item.id, errorClass, delaySeconds: retryDelaySeconds(item.attempts, deps.random()) }];
  });
  await deps.db.transaction({}, async (tx) => {
    const ours = await markFailed(tx, claim, rows);
    for (const item of claim.items) {
      const errorClass = failures.get(item.id);
      if (errorClass === undefined || !ours.has(item.id)) continue;
      record(deps, tx, claim, item, 'revocation.attempted', {
        outcome: 'failed',
        error_class: errorClass,
        attempts: item.attempts,
      });
      deps.observer.failed(claim.target, errorClass);
    }
  });
}

function record(
  deps: RevocationDeps,
  tx: Transaction,
  claim: Claim,
  item: Claimed,
  type: 'revocation.contained' | 'revocation.clean' | 'revocation.attempted',
  payload: Readonly<Record<string, unknown>>,
): void {
  const correlation = `${deps.worker}#${claim.number}`;
  tx.record(
    engineEvent(type, item, correlation, deps.policyDigest(), item.endedBy, {
      target: claim.target,
      handle: item.handle,
      revocation_id: `rev_${item.id}`,
      ...payload,
    }),
  );
  tx.changed(item.taskId);
}

function toRef(item: Claimed): Ref {
  return { grantId: item.grantId, handle: item.handle, facts: item.facts, deadline: item.deadline };
}

function progressOf(seen: ReadonlyMap<RevocationId, Evidence>): Progress[] {
  return [...seen].map(([id, evidence]) => ({ id, evidence }));
}

function callSignal(signal: AbortSignal): AbortSignal {
  return AbortSignal.any([signal, AbortSignal.timeout(CALL_SECONDS * 1000)]);
}

function classOf(error: unknown): ErrorClass {
  return error instanceof ProviderError ? error.errorClass : 'retryable';
}

/** Keeps the claim while a target is slow, and aborts the work when the claim is lost to another worker. */
class Heartbeat {
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;

  constructor(deps: RevocationDeps, claim: Claim) {
    this.#timer = setInterval(() => {
      extendClaim(deps.db, claim, LEASE_SECONDS)
        .then((held) => {
          if (held === 0) this.#lost.abort(new ProviderError('retryable', 'The claim was lost.'));
        })
        // Without the store nothing can be recorded, but fencing goes on: it is idempotent.
        .catch((error: unknown) => deps.log({ target: claim.target, error }, 'a claim could not be extended'));
    }, HEARTBEAT_MILLIS);
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
