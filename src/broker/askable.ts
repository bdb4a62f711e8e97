import type { ActiveRevision } from '../catalog/active.ts';
import { MayflyError } from '../domain/errors.ts';
import { owns } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import type { TaskState } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import type { BrokerDeps } from './deps.ts';
import { requireFresh } from './fresh.ts';
import { killedProblem } from './kill.ts';
import { checkAlive } from './life.ts';
import { requireRevision } from './revision.ts';
import { requireStanding } from './standing.ts';

/**
 * What must hold before policy is asked about a grant. Answers the task as narrow as all that it hangs on is now.
 * @throws MayflyError that says what does not hold: `not_found`, `killed`, `task_ended`, `not_in_task`, …
 */
export function askable(
  deps: Pick<BrokerDeps, 'mintsPerTask'>,
  active: ActiveRevision,
  caller: WorkloadCaller,
  read: TaskState | null,
  entitlement: string,
): TaskState {
  if (read === null || !owns(caller, read.task)) throw new MayflyError('not_found');
  if (read.killed) throw killedProblem();
  checkAlive(read.task, read.now);
  const state = withinAncestors(read);
  if (!state.task.ceiling.entitlements.includes(entitlement)) throw new MayflyError('not_in_task');
  requireRevision(active, state.seen.revision);
  requireStanding(active.catalog, state.task);
  requireFresh(active.catalog, state, state.now);
  // Waiting does not help before the task is over; `next` says what does.
  if (state.seen.own_grants >= deps.mintsPerTask) {
    const retryAfterSeconds = Math.ceil((state.task.notAfter.getTime() - state.now.getTime()) / 1000);
    throw new MayflyError('too_many_mints', `It has had ${state.seen.own_grants}.`, { retryAfterSeconds });
  }
  return state;
}
