import { MayflyError } from '../domain/errors.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import { narrowed, owns, type Task } from '../domain/task.ts';
import type { Delegation, WorkloadCaller } from '../identity/types.ts';
import { readTree } from '../store/delegated-tasks.ts';
import { issuingWithin } from '../store/issuing.ts';
import { loneBirthLocks } from '../store/locks.ts';
import { takeWord } from '../store/signed-words.ts';
import { findTask, insertTask, type NewTask } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import { carrierOf } from './callers.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { taskEvent } from './evidence.ts';
import { killedProblem } from './kill.ts';
import { checkAlive } from './life.ts';
import { tooManyTasks } from './open-task.ts';
import { requireRevision, revisionOf } from './revision.ts';

/** Tasks that one tree may ever have: all of them end in one transaction. */
export const MOST_TASKS_OF_A_TREE = 1_000;

export interface DelegatedTask {
  readonly task: Task;
  /** The same delegation from the same owner, seen before: nothing was made. */
  readonly replayed: boolean;
  /** What its parent can not give for so long. */
  readonly cut: { readonly askedNotAfter?: Date; readonly askedMaxTtlSeconds?: number } | null;
}

/**
 * Offers a part of a task to another workload. Only its owner does that, by a word that its own key or its issuer signed; the child
 * lives once the workload claims it. What it may is within its parent and all above, as they are now.
 */
export async function delegateTask(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  parentId: TaskId,
  delegation: string,
  context: CallContext,
): Promise<DelegatedTask> {
  const active = revisionOf(deps, caller);
  const parent = await findTask(deps.db, parentId);
  if (parent === undefined || !owns(caller, parent)) throw new MayflyError('not_found');
  if (parent.maxDepth === 0) throw new MayflyError('excessive_delegation', 'This task may have no tasks below it.');
  const { trust } = active.catalog;
  const said = await deps.identity.verifyDelegation(delegation, parent, {
    trust,
    audience: deps.audience,
    now: new Date(),
  });
  const room = await deps.tasksAlive.hasRoom(parent.issuer);
  const id = deps.ids.next('task');
  const answer = await deps.db.transaction(loneBirthLocks(parent.rootId), async (tx): Promise<DelegatedTask> => {
    const earlier = await takeWord(tx, { ...said, taskId: id, carrier: carrierOf(caller) });
    if (earlier !== undefined) {
      const child = earlier.same ? await findTask(tx, earlier.taskId) : undefined;
      if (child === undefined) throw new MayflyError('task_request_used');
      tx.record(taskEvent('task.replayed', child, active.catalog.digest, context));
      return { task: child, replayed: true, cut: null };
    }
    const read = await issuingWithin(tx).readTask(parentId);
    if (read === null) throw new MayflyError('not_found');
    requireRevision(active, read.seen.revision);
    const born = { id, now: tx.now, revision: active.number };
    if (read.killed) throw killedProblem();
    checkAlive(read.task, read.now);
    const { task, cut } = childOf(withinAncestors(read).task, said, born);
    const tree = await readTree(tx, parent.rootId, said.workload);
    if (tree.killed) throw killedProblem();
    if (!room) throw tooManyTasks();
    if (tree.tasks >= MOST_TASKS_OF_A_TREE) throw new MayflyError('tree_full');
    if (!(await insertTask(tx, task))) throw new MayflyError('internal');
    const child: Task = { ...task, endedAt: null, endedBy: null };
    const { ceiling } = child;
    tx.record(
      taskEvent('task.offered', child, active.catalog.digest, context, {
        resource: ceiling.entitlements.join(' '),
        payload: {
          parent_id: wireId('task', parentId),
          by: carrierOf(caller),
          signed_by: said.iss === parent.issuer ? 'issuer' : 'owner',
          jti: said.jti,
          purpose: child.purpose,
          phase: child.phase,
          key_thumbprint: child.keyThumbprint,
          not_after: child.notAfter.toISOString(),
          claim_by: task.offer.claimBy.toISOString(),
          entitlements: ceiling.entitlements,
          params: ceiling.params,
        },
      }),
    );
    tx.changed(parentId);
    step('delegate.before');
    return { task: child, replayed: false, cut };
  });
  step('delegate.after');
  return answer;
}

type Offered = NewTask & Required<Pick<NewTask, 'offer'>>;

/** Times are cut to what the parent has, and told; anything else that it does not have is refused. */
function childOf(
  parent: Task,
  said: Delegation,
  born: { readonly id: TaskId; readonly now: Date; readonly revision: number },
): { readonly task: Offered; readonly cut: DelegatedTask['cut'] } {
  const { id, now } = born;
  const { ceiling, phase } = said;
  const params = Object.entries(ceiling.params);
  const wider =
    ceiling.entitlements.some((name) => !parent.ceiling.entitlements.includes(name)) ||
    params.some(
      ([name, value]) => !Object.hasOwn(parent.ceiling.params, name) || parent.ceiling.params[name] !== value,
    ) ||
    said.purpose !== parent.purpose ||
    (phase !== null && phase !== parent.phase) ||
    said.maxDepth >= parent.maxDepth;
  if (wider) throw new MayflyError('excessive_delegation');
  const notAfter = said.notAfter < parent.notAfter ? said.notAfter : parent.notAfter;
  if (said.expiresAt <= now || notAfter <= now) throw new MayflyError('request_expired');
  const within = narrowed(ceiling, parent.ceiling);
  const name = wireId('task', id);
  const task: Offered = {
    id,
    rootId: parent.rootId,
    parentId: parent.id,
    depth: parent.depth + 1,
    maxDepth: said.maxDepth,
    issuer: parent.issuer,
    // In the issuer's names for tasks and requests an agent must not take one.
    externalId: name,
    jti: name,
    txn: parent.txn,
    state: 'offered',
    purpose: parent.purpose,
    phase: parent.phase,
    subject: parent.subject,
    workload: said.workload,
    keyThumbprint: said.keyThumbprint,
    instance: null,
    deliveryThumbprint: said.deliveryThumbprint,
    ceiling: within,
    intentHash: parent.intentHash,
    createdAt: now,
    notAfter,
    requestDigest: said.payloadDigest,
    openedRevision: born.revision,
    offer: { claimBy: said.expiresAt < notAfter ? said.expiresAt : notAfter, followsPhase: phase === null },
  };
  const late = said.notAfter > notAfter && { askedNotAfter: said.notAfter };
  const asked = ceiling.maxTtlSeconds;
  const long = asked !== null && asked !== within.maxTtlSeconds && { askedMaxTtlSeconds: asked };
  return { task, cut: late || long ? { ...late, ...long } : null };
}
