import type { ActiveRevision } from '../catalog/active.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Guarantee } from '../domain/grant.ts';
import type { TaskId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import { bounded } from '../domain/within.ts';
import type { Caller } from '../identity/types.ts';
import { countReach, findStopped, type HeldGrant, listHeld, listReached, type ReachOf } from '../store/reach.ts';
import { readTaskStates } from '../store/tasks.ts';
import { type CouldAsk, couldAsk } from './could-ask.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { giveWay } from './give-way.ts';
import { findRootFor, isTargetInScope, requireRole } from './operator-scope.ts';
import { requireRevision, revisionOf } from './revision.ts';

/** Grants that are told of one task. */
const MOST_HELD = 200;
/** A target that is slow to say what it can hold keeps nobody waiting. */
const GUARANTEE_MILLIS = 2_000;

/** What one task holds and could ask for. */
export interface ReachedItem {
  readonly task: Task;
  /** False: only its grants are in the caller's scope, or it is over. */
  readonly shown: boolean;
  readonly held: readonly HeldGrant[];
  readonly heldTotal: number;
  readonly could: readonly CouldAsk[];
}

/** Blast radius: what can be reached now, and what could be asked for. */
export interface Reach {
  readonly of: ReachOf;
  readonly revision: number;
  /** All that there is in scope, whatever the page. */
  readonly tasks: number;
  readonly grants: number;
  readonly items: readonly ReachedItem[];
  readonly next: TaskId | undefined;
}

/**
 * What a workload, a task or an entitlement reaches: its living tasks with all below them (of an entitlement: the tasks that may ask for
 * it), what of theirs is not yet contained, and what would come of asking now. A page of tasks, by their ids. Changes nothing.
 * @throws MayflyError `operator_only`, `not_found` for what is not there, or out of scope.
 */
export async function readReach(
  deps: BrokerDeps,
  caller: Caller,
  of: ReachOf,
  after: TaskId | null,
  limit: number,
  { gone }: CallContext,
): Promise<Reach> {
  const active = revisionOf(deps, caller);
  const { scope } = requireRole(deps, caller, 'viewer');
  const within = scope === null ? null : [...scope];
  if (of.kind === 'task') await findRootFor(deps, caller, 'viewer', of.id);
  if (of.kind === 'entitlement' && !isTargetInScope(scope, of.id.replace(/\/.*$/, '')))
    throw new MayflyError('not_found');
  const counts = await countReach(deps.db, of, within);
  if (of.kind === 'entitlement' && counts.tasks === 0 && !active.catalog.entitlements.has(of.id))
    throw new MayflyError('not_found');
  const reached = await listReached(deps.db, of, within, after, limit + 1);
  const page = reached.slice(0, limit);
  const ids = page.map(({ task }) => task.id);
  const { grants, totals } = await listHeld(deps.db, of, within, ids, MOST_HELD);
  const asked = page.flatMap(({ task, inScope }) => (inScope ? [[task.id, askable(of, task)] as const] : []));
  const could = await decideAll(deps, active, new Map(asked), gone);
  return {
    ...{ of, revision: active.number, ...counts },
    items: page.map(({ task, inScope }) => ({
      ...{ task, shown: inScope, could: could.get(task.id) ?? [] },
      held: grants.filter(({ taskId }) => taskId === task.id),
      heldTotal: totals.get(task.id) ?? 0,
    })),
    next: reached.length > limit ? ids.at(-1) : undefined,
  };
}

function askable(of: ReachOf, { ceiling }: Task): readonly string[] {
  return of.kind === 'entitlement' ? ceiling.entitlements.filter((name) => name === of.id) : ceiling.entitlements;
}

/** @param asked By task, the entitlements that it may ask for. */
async function decideAll(
  deps: BrokerDeps,
  active: ActiveRevision,
  asked: ReadonlyMap<TaskId, readonly string[]>,
  gone: AbortSignal,
): Promise<ReadonlyMap<TaskId, readonly CouldAsk[]>> {
  const names = [...new Set([...asked.values()].flat())];
  const stopped = await findStopped(deps.db, names);
  const guarantees = new Map(
    await Promise.all(names.map(async (name) => [name, await guaranteeOf(deps, active, name)] as const)),
  );
  const states = await readTaskStates(deps.db, [...asked.keys()]);
  const could = new Map<TaskId, readonly CouldAsk[]>();
  for (const state of states) {
    if (state === null) continue;
    const answers: CouldAsk[] = [];
    for (const name of asked.get(state.task.id) ?? []) {
      gone.throwIfAborted();
      await giveWay();
      // A policy set that is not the active one any more is closed, and denies.
      requireRevision(active, deps.catalog.current().number);
      answers.push(couldAsk(active, state, name, guarantees.get(name), stopped.get(name)));
    }
    could.set(state.task.id, answers);
  }
  return could;
}

async function guaranteeOf(
  deps: Pick<BrokerDeps, 'access'>,
  { catalog }: ActiveRevision,
  name: string,
): Promise<Guarantee | undefined> {
  const entitlement = catalog.entitlements.get(name);
  if (entitlement === undefined) return undefined;
  try {
    const { session, config } = deps.access(entitlement);
    return await bounded(GUARANTEE_MILLIS, [], (signal) => session.guarantee(config, signal));
  } catch {
    // Whatever it is, the answer says `target_unavailable`; who asks for real is told more.
    return undefined;
  }
}
