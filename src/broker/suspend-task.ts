import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import type { StandingSignal } from '../domain/signal.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import { suspending } from '../policy/signals.ts';
import type { Transaction } from '../store/database.ts';
import { endGrantsBelow } from '../store/grants.ts';
import { resumeTask as resume, suspendTasks } from '../store/suspensions.ts';
import { findTask, findTasks } from '../store/tasks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent, taskEvent } from './evidence.ts';
import { findRootFor, requireRole } from './operator-scope.ts';

/** The cause that an operator is, whoever it was: the evidence names them. */
const OPERATOR = 'operator';

/**
 * Until it is resumed nothing is issued, renewed or permitted to the task and to all below it. What they hold is revoked. Said again, it
 * answers the same.
 * @throws MayflyError `operator_only`, `not_found`, `task_ended`, `task_offered`
 */
export async function suspendTask(
  deps: BrokerDeps,
  caller: Caller,
  id: TaskId,
  reason: string,
  context: CallContext,
): Promise<Task> {
  const { operator } = requireRole(deps, caller, 'operator');
  const rootId = await findRootFor(deps, caller, 'operator', id);
  let targets: readonly string[] = [];
  const task = await deps.db.transaction({ root: { id: rootId, mode: 'exclusive' } }, async (tx) => {
    const suspended = await suspendTasks(tx, { of: { id }, cause: OPERATOR });
    targets = await tellSuspended(deps, tx, suspended, 'operator', { by: operator, reason }, context);
    step('suspend-task.before');
    return await findTask(tx, id);
  });
  step('suspend-task.after');
  for (const target of targets) deps.alarms.now(target);
  return requireState(task, 'suspended');
}

/**
 * Lets a suspended task go on, whatever suspended it. What was revoked stays revoked. Said again, it answers the same.
 * @throws MayflyError `operator_only`, `not_found`, `task_ended`, `task_offered`
 */
export async function resumeTask(
  deps: BrokerDeps,
  caller: Caller,
  id: TaskId,
  reason: string | null,
  context: CallContext,
): Promise<Task> {
  const { operator } = requireRole(deps, caller, 'operator');
  const rootId = await findRootFor(deps, caller, 'operator', id);
  const task = await deps.db.transaction({ root: { id: rootId, mode: 'exclusive' } }, async (tx) => {
    const resumed = await resume(tx, id);
    tellResumed(deps, tx, resumed === undefined ? [] : [resumed], { by: operator, reason }, context);
    step('resume-task.before');
    return await findTask(tx, id);
  });
  step('resume-task.after');
  return requireState(task, 'active');
}

/** @throws MayflyError `task_suspended`: no task begins for whom a source suspends now. */
export function requireUnsuspended(
  { signalSources }: Pick<Catalog, 'signalSources'>,
  standing: readonly StandingSignal[],
): void {
  if (suspending(signalSources, standing) !== undefined)
    throw new MayflyError('task_suspended', 'A signal suspends the tasks of this workload, or of whom it acts for.');
}

/** Ends what they and all below them hold. Answers where something is due now. */
export async function tellSuspended(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  tasks: readonly Task[],
  endedBy: 'operator' | 'signal',
  payload: Readonly<Record<string, unknown>>,
  context: Pick<CallContext, 'requestId'>,
): Promise<readonly string[]> {
  if (tasks.length === 0) return [];
  const digest = digestInForce(deps.catalog);
  const byId = new Map(tasks.map((task) => [task.id, task]));
  for (const task of tasks) {
    tx.record(taskEvent('task.suspended', task, digest, context, { cause: endedBy, payload }));
    tx.changed(task.id);
    if (task.parentId !== null) tx.changed(task.parentId);
  }
  const ended = await endGrantsBelow(tx, [...byId.keys()], endedBy);
  const others = new Set(ended.map(({ grant }) => grant.taskId).filter((id) => !byId.has(id)));
  for (const task of others.size === 0 ? [] : await findTasks(tx, [...others])) byId.set(task.id, task);
  for (const { grant, revocation } of ended) {
    const owner = byId.get(grant.taskId);
    if (owner === undefined) continue;
    tx.changed(owner.id);
    tx.record(
      grantEvent('grant.ended', owner, grant, digest, context, {
        cause: endedBy,
        payload: { because: 'task_suspended', revocation_id: wireId('rev', revocation.id), ...payload },
      }),
    );
  }
  return [...new Set(ended.map(({ grant }) => grant.target))];
}

export function tellResumed(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  tasks: readonly Task[],
  payload: Readonly<Record<string, unknown>>,
  context: Pick<CallContext, 'requestId'>,
): void {
  for (const task of tasks) {
    tx.record(taskEvent('task.resumed', task, digestInForce(deps.catalog), context, { payload }));
    tx.changed(task.id);
    if (task.parentId !== null) tx.changed(task.parentId);
  }
}

function requireState(task: Task | undefined, state: 'active' | 'suspended'): Task {
  if (task === undefined) throw new MayflyError('not_found');
  if (task.state === 'offered') throw new MayflyError('task_offered');
  if (task.state !== state)
    throw new MayflyError('task_ended', `The task is ${task.state}.`, { members: { ended_by: task.endedBy } });
  return task;
}
