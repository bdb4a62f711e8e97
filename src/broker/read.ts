import { MayflyError } from '../domain/errors.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import { type GrantWithRevocation, listGrantsOfTask, listGrantsOfTree, type ReadGrant } from '../store/grants.ts';
import { listDescendants } from '../store/delegated-tasks.ts';
import { findTask } from '../store/tasks.ts';
import { countTaskEvents, listTaskEvents, type StoredEvent } from '../store/timeline.ts';
import { MOST_TASKS_OF_A_TREE } from './delegate-task.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { findAnyGrantFor, findRootFor } from './operator-scope.ts';

/** A waiter looks again at least this often, in case a notification died with its sender. */
const BACKSTOP_MILLIS = 5_000;
/** Of a timeline that has more the latest are told. */
const MOST_EVENTS = 10_000;

export interface TaskView {
  readonly task: Task;
  readonly grants: readonly ReadGrant[];
  /** All that hangs on it, parents before their children: what they are, not what they hold. */
  readonly children: readonly Task[];
}

export async function readTask(deps: BrokerDeps, caller: Caller, id: TaskId): Promise<TaskView> {
  await findRootFor(deps, caller, 'viewer', id);
  return await viewTask(deps, id);
}

/** A task with all that hangs on it; the caller was let in before. */
export async function viewTask(deps: Pick<BrokerDeps, 'db'>, id: TaskId): Promise<TaskView> {
  const [task, grants, children] = await Promise.all([
    findTask(deps.db, id),
    listGrantsOfTask(deps.db, id),
    listDescendants(deps.db, id, MOST_TASKS_OF_A_TREE),
  ]);
  if (task === undefined) throw new MayflyError('not_found');
  return { task, grants, children };
}

export async function readGrant(deps: BrokerDeps, caller: Caller, id: GrantId): Promise<ReadGrant> {
  return await findAnyGrantFor(deps, caller, 'viewer', id);
}

/**
 * The evidence of a task, in order. Its owner may read it but for the words of operators and the names of kills, and an auditor all of it.
 * @param admit Told before it is read how much of the longest one it is; refuses by throwing.
 */
export async function readTimeline(
  deps: BrokerDeps,
  caller: Caller,
  id: TaskId,
  admit: (share: number) => Promise<void>,
): Promise<StoredEvent[]> {
  await findRootFor(deps, caller, 'auditor', id);
  await admit((await countTaskEvents(deps.db, id, MOST_EVENTS)) / MOST_EVENTS);
  const events = await listTaskEvents(deps.db, id, MOST_EVENTS);
  return caller.kind === 'operator' ? events : events.map(asOwnersRead);
}

/** What an operator said of a write-off or an approval, and which kill it was, is for operators. */
function asOwnersRead(event: StoredEvent): StoredEvent {
  const { kill_id: _, ...told } = event.payload;
  if (event.type !== 'revocation.written_off' && !event.type.startsWith('approval.'))
    return { ...event, payload: told };
  const { reason: __, ...payload } = told;
  return { ...event, payload };
}

/** All grants of the tree below a task, once every one is contained or the time is up. */
export async function waitContained(
  deps: BrokerDeps,
  id: TaskId,
  seconds: number,
  context: CallContext,
): Promise<readonly GrantWithRevocation[]> {
  const read = () => listGrantsOfTree(deps.db, id);
  // What its descendants held is told as theirs. None of them gets more.
  const holders = new Set((await read()).map(({ grant }) => grant.taskId));
  return await waitUntil(deps, [...holders], seconds, context, read, (grants) => grants.every(isContained));
}

export function isContained({ revocation }: GrantWithRevocation): boolean {
  return revocation.state === 'contained' || revocation.state === 'clean';
}

/**
 * Reads until `enough`, waking on every change of these tasks and not on a clock. Answers the last read when the time is up or the
 * caller is gone.
 */
export async function waitUntil<T>(
  deps: Pick<BrokerDeps, 'changes'>,
  ids: readonly TaskId[],
  seconds: number,
  context: CallContext,
  read: () => Promise<T>,
  enough: (value: T) => boolean,
): Promise<T> {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const controller = new AbortController();
    const signal = AbortSignal.any([controller.signal, context.gone]);
    const left = end - performance.now();
    // Listening begins before the read, so that a change between the two is not missed.
    const millis = Math.max(0, Math.min(left, BACKSTOP_MILLIS));
    const changed = Promise.race(ids.map((id) => deps.changes.wait(id, millis, signal)));
    try {
      const value = await read();
      if (enough(value) || left <= 0 || context.gone.aborted) return value;
      await changed;
    } finally {
      controller.abort();
    }
  }
}
