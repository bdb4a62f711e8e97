import { setTimeout as pause } from 'node:timers/promises';
import type { AuditEvent } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import type { Database } from '../store/database.ts';
import { findReconciliations, type Reconciliation, requestRuns } from '../store/reconciliations.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { requireInScope, requireRole } from './operator-scope.ts';

const LOOK_MILLIS = 250;

/** A comparison that was asked for, and where the target's comparisons stand now. */
export interface AskedRun {
  readonly target: string;
  readonly askedAt: Date;
  /** Of the one that began since it was asked for; `asked` while none has. */
  readonly state: 'asked' | 'running' | 'over';
  readonly reconciliation: Reconciliation;
}

/**
 * Has a broker compare the target with the store, by the claim that every run takes: none reads a target beside another. One
 * under way began too early and counts for nothing here; the one asked for follows it.
 * @param seconds To wait for what it finds; 0 only asks.
 * @throws MayflyError `operator_only`, `not_found`
 */
export async function reconcileTarget(
  deps: BrokerDeps,
  caller: Caller,
  target: string,
  seconds: number,
  context: CallContext,
): Promise<AskedRun> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  requireInScope(scope, target);
  if (!deps.catalog.current().catalog.targets.has(target)) throw new MayflyError('not_found');
  const event = operatorEvent('target.reconcile_asked', deps.catalog, context, operator, {
    resource: target,
    payload: { target },
  });
  return await askForRun(deps.db, target, event, seconds, context.gone);
}

/** Asks for a run with the event that tells of it, and waits. Answers where it stands when it is over, the time is up or `gone` fires. */
export async function askForRun(
  db: Database,
  target: string,
  event: AuditEvent,
  seconds: number,
  gone: AbortSignal,
): Promise<AskedRun> {
  const askedAt = await db.transaction({}, async (tx) => {
    const asked = await requestRuns(tx, [target]);
    tx.record(event);
    step('ask-run.before');
    return asked;
  });
  step('ask-run.after');
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const [reconciliation] = await findReconciliations(db, [target]);
    if (reconciliation === undefined) throw new MayflyError('internal');
    const state = stateOf(reconciliation, askedAt);
    if (state === 'over' || performance.now() >= end || gone.aborted) return { target, askedAt, state, reconciliation };
    await pause(LOOK_MILLIS, undefined, { signal: gone }).catch(() => {});
  }
}

function stateOf({ startedAt, finishedAt }: Reconciliation, askedAt: Date): AskedRun['state'] {
  if (startedAt === null || startedAt < askedAt) return 'asked';
  return finishedAt !== null && finishedAt >= startedAt ? 'over' : 'running';
}
