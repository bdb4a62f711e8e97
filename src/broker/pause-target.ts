import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { hasOpenOn } from '../store/queue.ts';
import { endPause, findPause, insertPause, type Pause } from '../store/target-controls.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { requireInScope, requireRole } from './operator-scope.ts';
import { requireRevision, revisionOf } from './revision.ts';

export interface PauseRequest {
  readonly reason: string;
  /** Hold what has reached its deadline too. */
  readonly deadlinesHeld: boolean;
}

/**
 * Leaves a target alone: grants that ended early are not taken back there, and none is issued or renewed. What reaches its deadline
 * is ended all the same, unless that is said to be held too. Said again, it answers the pause that stands.
 */
export async function pauseTarget(
  deps: BrokerDeps,
  caller: Caller,
  target: string,
  request: PauseRequest,
  context: CallContext,
): Promise<Pause> {
  const active = revisionOf(deps, caller);
  const { operator, scope } = requireRole(deps, caller, 'operator');
  requireInScope(scope, target);
  await requireTarget(deps, target);
  // As every stop: alone among births, so that none is decided before it and committed behind it.
  const pause = await deps.db.transaction({ kill: 'exclusive', catalog: 'shared' }, async (tx) => {
    requireRevision(active, await findActiveRevisionNumber(tx));
    const fresh = await insertPause(tx, { target, ...request, by: operator });
    if (fresh === undefined) return await findPause(tx, target);
    tx.record(
      operatorEvent('target.paused', deps.catalog, context, operator, {
        resource: target,
        payload: { target, reason: fresh.reason, deadlines: fresh.deadlinesHeld ? 'held' : 'run' },
      }),
    );
    step('pause.before');
    return fresh;
  });
  step('pause.after');
  // Resumed by another operator between the two statements.
  if (pause === undefined) throw new MayflyError('store_unavailable', 'The target was resumed at this moment.');
  return pause;
}

/** Goes on with a target. What was held back is tried at once. Said again, nothing happens. */
export async function resumeTarget(
  deps: BrokerDeps,
  caller: Caller,
  target: string,
  context: CallContext,
): Promise<void> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  requireInScope(scope, target);
  await requireTarget(deps, target);
  await deps.db.transaction({}, async (tx) => {
    if (!(await endPause(tx, target, operator))) return;
    tx.record(
      operatorEvent('target.resumed', deps.catalog, context, operator, { resource: target, payload: { target } }),
    );
    step('resume.before');
  });
  step('resume.after');
  deps.alarms.now(target);
}

export function pausedProblem(target: string, members: Readonly<Record<string, unknown>> = {}): MayflyError {
  return new MayflyError('target_paused', `Target ${target} is paused.`, { retryAfterSeconds: 30, members });
}

/** One of the active catalog, or one that was dropped from it and is not clean or not resumed yet. @throws MayflyError `not_found` */
async function requireTarget(deps: BrokerDeps, target: string): Promise<void> {
  if (deps.catalog.ready && deps.catalog.current().catalog.targets.has(target)) return;
  if ((await findPause(deps.db, target)) !== undefined || (await hasOpenOn(deps.db, target))) return;
  throw new MayflyError('not_found');
}
