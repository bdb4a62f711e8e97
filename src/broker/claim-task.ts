import { MayflyError } from '../domain/errors.ts';
import type { TaskId } from '../domain/ids.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import { step } from '../domain/step.ts';
import { owns, type Task } from '../domain/task.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { claimOffered } from '../store/delegated-tasks.ts';
import { issuingWithin } from '../store/issuing.ts';
import { loneBirthLocks } from '../store/locks.ts';
import { findOwnedRoot } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { taskEvent } from './evidence.ts';
import { killedProblem } from './kill.ts';
import { checkAlive } from './life.ts';
import { requireUnsuspended } from './suspend-task.ts';
import { requireRevision, revisionOf } from './revision.ts';

/** The workload that a delegation names takes the task, by its own proofs. Said again, it answers the same. */
export async function claimTask(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  id: TaskId,
  context: CallContext,
): Promise<Task> {
  const active = revisionOf(deps, caller);
  const rootId = await findOwnedRoot(deps.db, id, caller);
  if (rootId === undefined) throw new MayflyError('not_found');
  const task = await deps.db.transaction(loneBirthLocks(rootId), async (tx) => {
    const state = await issuingWithin(tx).readTask(id);
    // Another copy of the workload may have been first.
    if (state === null || !owns(caller, state.task)) throw new MayflyError('not_found');
    if (state.killed) throw killedProblem();
    const offered = state.task;
    if (offered.state !== 'offered') {
      checkAlive(offered, tx.now);
      return offered;
    }
    requireRevision(active, state.seen.revision);
    const issuer = active.catalog.trust.taskIssuers.find((one) => one.issuer === offered.issuer);
    if (issuer === undefined || !namesWorkload(issuer.workloads, offered.workload))
      throw new MayflyError(
        'issuer_may_not_state',
        'The catalog does not let this issuer name this workload any more.',
      );
    withinAncestors(state);
    requireUnsuspended(active.catalog, state.seen.signals ?? []);
    const claimed = await claimOffered(tx, id, caller.instance);
    if (claimed === undefined)
      throw new MayflyError('task_ended', 'The offer has lapsed.', { members: { ended_by: 'expired' } });
    const instance = claimed.instance !== null && { instance: { id: claimed.instance, ...caller.instanceDetails } };
    tx.record(
      taskEvent('task.claimed', claimed, active.catalog.digest, context, {
        payload: { key_thumbprint: claimed.keyThumbprint, ...instance },
      }),
    );
    tx.changed(id);
    if (claimed.parentId !== null) tx.changed(claimed.parentId);
    step('claim-task.before');
    return claimed;
  });
  step('claim-task.after');
  return task;
}
