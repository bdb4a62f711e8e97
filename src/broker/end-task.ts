import { MayflyError } from '../domain/errors.ts';
import type { TaskId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { EndedBy, Task, TaskState } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { endGrantsOfTasks, type GrantWithRevocation, listGrantsOfTree } from '../store/grants.ts';
import { endSubtree, findExpiredTasks } from '../store/task-ends.ts';
import { findTask } from '../store/tasks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent, taskEvent } from './evidence.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { findRootFor } from './operator-scope.ts';

export interface EndedTask {
  readonly task: Task;
  /** Every grant that the tree ever had, each with its target, state and evidence. */
  readonly grants: readonly GrantWithRevocation[];
}

/**
 * Completes or cancels a task: its state, the states of its descendants, and the obligations of all their grants in one
 * transaction. From that commit on no grant of the tree can become active. Said again, it answers the same.
 */
export async function endTask(
  deps: BrokerDeps,
  caller: Caller,
  id: TaskId,
  how: 'completed' | 'cancelled',
  context: CallContext,
): Promise<EndedTask> {
  const rootId = await findRootFor(deps, caller, 'operator', id);
  const by = caller.kind === 'operator' ? caller.operator : 'owner';
  const task = await endTree(deps, id, rootId, how, how, context, { by });
  requireEnded(task, how);
  return { task, grants: await listGrantsOfTree(deps.db, id) };
}

/** @throws MayflyError where the task ended in another way, or is only offered and can not be completed. */
export function requireEnded(task: Task, how: 'completed' | 'cancelled'): void {
  if (task.state === 'offered') throw new MayflyError('task_offered');
  if (task.state !== how)
    throw new MayflyError('task_ended', `The task is ${task.state}.`, { members: { ended_by: task.endedBy } });
}

/** Ends tasks that have outlived their `not_after`, and offers that nobody claimed in time. Answers how many. */
export async function expireTasks(deps: Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>, limit: number): Promise<number> {
  const expired = await findExpiredTasks(deps.db, limit);
  let failure: Error | undefined;
  for (const { id, rootId } of expired) {
    try {
      await endTree(deps, id, rootId, 'expired', 'expired', { requestId: 'sweeper' }, { by: 'deadline' });
    } catch (error) {
      // One that can not be ended now must not keep the others alive.
      failure = error instanceof Error ? error : new Error(String(error));
    }
  }
  if (failure !== undefined) throw failure;
  return expired.length;
}

/** @param also Within the same transaction, before anything ends. */
export async function endTree(
  deps: Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>,
  id: TaskId,
  rootId: TaskId,
  state: TaskState,
  endedBy: EndedBy,
  context: Pick<CallContext, 'requestId'>,
  payload: Readonly<Record<string, unknown>>,
  also?: (tx: Transaction) => Promise<unknown>,
): Promise<Task> {
  const digest = digestInForce(deps.catalog);
  const targets = new Set<string>();
  const task = await deps.db.transaction({ root: { id: rootId, mode: 'exclusive' } }, async (tx) => {
    await also?.(tx);
    const { tasks, wait } = await endSubtree(tx, id, state, endedBy);
    const byId = new Map(tasks.map((ended) => [ended.id, ended]));
    for (const ended of tasks) {
      tx.record(taskEvent(eventOf(ended.state), ended, digest, context, { cause: ended.endedBy ?? 'none', payload }));
      tx.changed(ended.id);
      if (ended.parentId !== null) tx.changed(ended.parentId);
    }
    const ids = tasks.map((ended) => ended.id);
    if (wait) await lapseApprovals(deps, tx, { kind: 'tasks', ids }, 'task_ended', context);
    for (const { grant, revocation } of ids.length === 0 ? [] : await endGrantsOfTasks(tx, ids)) {
      const owner = byId.get(grant.taskId);
      if (owner === undefined) continue;
      targets.add(grant.target);
      tx.record(
        grantEvent('grant.ended', owner, grant, digest, context, {
          cause: grant.endedBy ?? 'none',
          payload: { revocation_id: `rev_${revocation.id}` },
        }),
      );
    }
    const ended = byId.get(id) ?? (await findTask(tx, id));
    step('end.before');
    return ended;
  });
  step('end.after');
  for (const target of targets) deps.alarms.now(target);
  if (task === undefined) throw new MayflyError('not_found');
  return task;
}

/** What tells that a task ended so. */
export function eventOf(state: TaskState) {
  switch (state) {
    case 'completed':
      return 'task.completed';
    case 'expired':
      return 'task.expired';
    case 'revoked':
      return 'task.revoked';
    default:
      return 'task.cancelled';
  }
}
