import { MayflyError } from '../domain/errors.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import type { Caller, TaskEvent } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { movePhase } from '../store/delegated-tasks.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { markUndecided } from '../store/drift.ts';
import { type GrantWithRevocation, listGrantsOfTree } from '../store/grants.ts';
import { takeWord } from '../store/signed-words.ts';
import { findTask } from '../store/tasks.ts';
import { carrierOf } from './callers.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { endTree, requireEnded } from './end-task.ts';
import { taskEvent } from './evidence.ts';
import { checkAlive } from './life.ts';
import { requireRevision, revisionOf } from './revision.ts';

export interface TakenEvent {
  readonly task: Task;
  /** Of the tree, where the event ended it. */
  readonly grants: readonly GrantWithRevocation[] | null;
}

/**
 * Does what the task's issuer says of it. The word is the issuer's, so that any believed caller may carry it; it counts once, and is
 * answered again only to who carried it.
 */
export async function takeEvent(
  deps: BrokerDeps,
  caller: Caller,
  id: TaskId,
  event: string,
  context: CallContext,
): Promise<TakenEvent> {
  const active = caller.kind === 'workload' ? revisionOf(deps, caller) : deps.catalog.current();
  const { trust } = active.catalog;
  const said = await deps.identity.verifyTaskEvent(event, { trust, audience: deps.audience, now: new Date() });
  if (said.taskId !== id) throw new MayflyError('request_task_wrong');
  const task = await findTask(deps.db, id);
  if (task === undefined || task.issuer !== said.issuer.issuer) throw new MayflyError('not_found');
  const carrier = carrierOf(caller);
  /** Answers whether it was taken before. @throws MayflyError `task_request_used` */
  const take = async (tx: Transaction): Promise<boolean> => {
    const earlier = await takeWord(tx, { ...said, iss: said.issuer.issuer, carrier });
    if (earlier?.same === false) throw new MayflyError('task_request_used');
    return earlier !== undefined;
  };
  const payload = { by: 'issuer', jti: said.jti, carrier, reason: said.reason };
  if (said.op !== 'phase') {
    const how = said.op === 'complete' ? 'completed' : 'cancelled';
    const ended = await endTree(deps, id, task.rootId, how, how, context, payload, take);
    requireEnded(ended, how);
    return { task: ended, grants: await listGrantsOfTree(deps.db, id) };
  }

  // Exclusive: whatever is born after it is born in the new phase.
  const locks = { catalog: 'shared', root: { id: task.rootId, mode: 'exclusive' } } as const;
  const now = await deps.db.transaction(locks, async (tx) => {
    requireRevision(active, await findActiveRevisionNumber(tx));
    const repeated = await take(tx);
    const found = await findTask(tx, id);
    if (found === undefined) throw new MayflyError('not_found');
    if (repeated || !isMove(found, said, active.catalog.purposes.get(found.purpose)?.phases ?? [], tx.now))
      return found;
    const moved = await movePhase(tx, id, said.phase);
    // Also what stays behind: it may have nothing while its parent is in another phase.
    await markUndecided(tx, id);
    for (const each of moved) {
      const by = each.id === id ? payload : { by: 'parent', parent_id: wireId('task', id) };
      tx.record(
        taskEvent('task.moved', each, active.catalog.digest, context, {
          payload: { ...by, phase: said.phase, phase_before: found.phase },
        }),
      );
      tx.changed(each.id);
      if (each.parentId !== null) tx.changed(each.parentId);
    }
    step('move-phase.before');
    return { ...found, phase: said.phase };
  });
  step('move-phase.after');
  deps.drift.wake();
  return { task: now, grants: null };
}

/** Whether there is anything to move. Phases go one way. @throws MayflyError */
function isMove(task: Task, { phase }: TaskEvent & { op: 'phase' }, phases: readonly string[], now: Date): boolean {
  checkAlive(task, now);
  const to = phases.indexOf(phase);
  if (to === -1) throw new MayflyError('issuer_may_not_state', 'The catalog does not know that phase of the purpose.');
  if (to < phases.indexOf(task.phase ?? '')) throw new MayflyError('phase_passed');
  return phase !== task.phase;
}
