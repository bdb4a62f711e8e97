import { MayflyError } from '../domain/errors.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import { step } from '../domain/step.ts';
import { owns, type Task } from '../domain/task.ts';
import type { TaskStatement, WorkloadCaller } from '../identity/types.ts';
import { readBeforeOpening } from '../store/kills.ts';
import { birthLocks } from '../store/locks.ts';
import { findEarlierTask, insertTask, type NewTask } from '../store/tasks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { taskEvent } from './evidence.ts';
import { killedProblem } from './kill.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { requireUnsuspended } from './suspend-task.ts';

/** When to look again whether some of an issuer's tasks have ended. */
const ROOM_SECONDS = 10;

export interface OpenedTask {
  readonly task: Task;
  /** The same request from its proven owner, seen before: nothing was opened. */
  readonly replayed: boolean;
  /** Set when the task lives shorter than the issuer said. */
  readonly cut: { readonly by: 'issuer' | 'purpose'; readonly askedNotAfter: Date } | null;
}

/**
 * Opens a task from a signed request. `(iss, jti)` is spent with the task row and only after every proof holds, so that a thief
 * can not burn it.
 */
export async function openTask(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  request: string,
  context: CallContext,
): Promise<OpenedTask> {
  const active = revisionOf(deps, caller);
  const statement = await deps.identity.verifyTaskRequest(request, {
    trust: active.catalog.trust,
    audience: deps.audience,
    now: new Date(),
  });
  checkActor(statement, caller);
  checkKey(statement, caller);
  await requireRoom(deps, statement);
  step('open.before');
  const answer = await deps.db.transaction(birthLocks(), async (tx): Promise<OpenedTask> => {
    const { revision, killed, signals } = await readBeforeOpening(
      tx,
      caller.workload,
      statement.issuer.issuer,
      statement.subject,
    );
    requireRevision(active, revision);
    if (killed) throw killedProblem();
    requireUnsuspended(active.catalog, signals);
    const purpose = active.catalog.purposes.get(statement.purpose);
    if (purpose === undefined || (statement.phase !== null && !purpose.phases.includes(statement.phase))) {
      throw new MayflyError('issuer_may_not_state', 'The catalog does not know that purpose, or that phase of it.');
    }
    const life = Math.min(statement.issuer.maxTaskSeconds, purpose.maxLifeSeconds);
    const latest = new Date(tx.now.getTime() + life * 1000);
    const id = deps.ids.next('task');
    const task: NewTask = {
      id,
      rootId: id,
      parentId: null,
      depth: 0,
      maxDepth: statement.maxDepth,
      issuer: statement.issuer.issuer,
      externalId: statement.externalId,
      jti: statement.jti,
      txn: statement.txn,
      state: 'active',
      purpose: statement.purpose,
      phase: statement.phase ?? purpose.phases[0] ?? null,
      subject: statement.subject,
      workload: caller.workload,
      keyThumbprint: statement.keyThumbprint,
      instance: caller.instance,
      deliveryThumbprint: statement.deliveryThumbprint,
      ceiling: statement.ceiling,
      intentHash: statement.intentHash,
      createdAt: tx.now,
      notAfter: statement.notAfter < latest ? statement.notAfter : latest,
      requestDigest: statement.payloadDigest,
      openedRevision: active.number,
    };
    if (task.notAfter <= tx.now)
      throw new MayflyError('request_expired', 'The task itself is over: `task.not_after` has passed.');
    const by = statement.issuer.maxTaskSeconds <= purpose.maxLifeSeconds ? 'issuer' : 'purpose';
    const cut = statement.notAfter > latest ? ({ by, askedNotAfter: statement.notAfter } as const) : null;

    if (await insertTask(tx, task)) {
      const opened: Task = { ...task, endedAt: null, endedBy: null };
      tx.record(
        taskEvent('task.opened', opened, active.catalog.digest, context, {
          resource: task.ceiling.entitlements.join(' '),
          payload: {
            purpose: task.purpose,
            phase: task.phase,
            issuer: task.issuer,
            external_id: task.externalId,
            jti: task.jti,
            key_thumbprint: task.keyThumbprint,
            ...(task.instance !== null && { instance: { id: task.instance, ...caller.instanceDetails } }),
            not_after: task.notAfter.toISOString(),
            entitlements: task.ceiling.entitlements,
            params: task.ceiling.params,
          },
        }),
      );
      return { task: opened, replayed: false, cut };
    }
    const earlier = await findEarlierTask(tx, task.issuer, task.jti, task.externalId, task.requestDigest);
    if (earlier === undefined || !earlier.sameRequest) {
      throw new MayflyError(earlier?.task.jti === task.jti ? 'task_request_used' : 'external_id_used');
    }
    if (!owns(caller, earlier.task)) throw new MayflyError('task_request_used');
    tx.record(taskEvent('task.replayed', earlier.task, active.catalog.digest, context));
    return { task: earlier.task, replayed: true, cut: null };
  });
  step('open.after');
  return answer;
}

/** A request that opened its task before is answered all the same. @throws MayflyError `too_many_tasks` */
async function requireRoom(deps: BrokerDeps, statement: TaskStatement): Promise<void> {
  const { issuer, jti, externalId, payloadDigest } = statement;
  if (await deps.tasksAlive.hasRoom(issuer.issuer)) return;
  if ((await findEarlierTask(deps.db, issuer.issuer, jti, externalId, payloadDigest)) !== undefined) return;
  throw tooManyTasks();
}

export function tooManyTasks(): MayflyError {
  return new MayflyError('too_many_tasks', undefined, { retryAfterSeconds: ROOM_SECONDS });
}

function checkActor(statement: TaskStatement, caller: WorkloadCaller): void {
  if (statement.actor !== caller.workload.subject) throw new MayflyError('workload_not_named');
  // The issuer's list of workloads, and what `act.iss` says of their source.
  if (
    !statement.actorSources.includes(caller.workload.source) ||
    !namesWorkload(statement.issuer.workloads, caller.workload)
  ) {
    throw new MayflyError('issuer_may_not_state', 'The catalog does not let this issuer name this workload.');
  }
}

/** It is the same party that the issuer's request names: who holds the request and the token alone has neither. */
function checkKey({ keyThumbprint }: TaskStatement, caller: WorkloadCaller): void {
  if (keyThumbprint === null || keyThumbprint === caller.keyThumbprint) return;
  throw new MayflyError(caller.keyThumbprint === null ? 'proof_missing' : 'request_key_wrong');
}
