import { MayflyError } from '../domain/errors.ts';
import { type KillId, type TaskId, wireId } from '../domain/ids.ts';
import type { KillScope } from '../domain/kill.ts';
import { step } from '../domain/step.ts';
import type { Task } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { endGrantsOfTasks, endGrantsOn, type GrantWithRevocation } from '../store/grants.ts';
import {
  endKilledTasks,
  findStanding,
  hasLiving,
  hastenKilled,
  holdKill,
  insertKill,
  type Kill,
  type Killed,
  markLifted,
} from '../store/kills.ts';
import type { Lapsing } from '../store/lapsing.ts';
import type { AwaitsSecond } from '../store/second-person.ts';
import { findTask, findTasks } from '../store/tasks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { eventOf } from './end-task.ts';
import { digestInForce, grantEvent, operatorEvent, taskEvent } from './evidence.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { agree, personOf, takesTwo } from './second-person.ts';
import { isTargetInScope, requireEverywhere, type ScopedTargets, requireRole } from './operator-scope.ts';

/** What is to be stopped. */
export type KillRequest =
  | { readonly scope: 'task'; readonly id: TaskId }
  | { readonly scope: Exclude<KillScope, 'task' | 'all'>; readonly id: string }
  | { readonly scope: 'all' };

export interface RaisedKill {
  readonly kill: Kill;
  /** It stood already: nothing was done. */
  readonly repeated: boolean;
}

/**
 * Stops something until it is lifted. One transaction blocks every later birth of it, and ends what lives: from its commit on no grant
 * of it becomes active. Said again while it stands, it answers the kill that stands.
 * @throws MayflyError `operator_only`, `not_found` for what neither the catalog nor anything alive names: it would stop nothing.
 */
export async function raiseKill(
  deps: BrokerDeps,
  caller: Caller,
  request: KillRequest,
  reason: string,
  context: CallContext,
): Promise<RaisedKill> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  const { targets, ...killed } = await named(deps, request, scope);
  const kill = { id: deps.ids.next('kill'), ...killed, targets, reason, by: operator };
  const raised = await enactKill(deps, kill, context);
  deps.kept.remember(raised.kill);
  return raised;
}

type EnactDeps = Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>;

/** Carries it out, unless it stands. @param restored The store forgot that it had done so. */
export async function enactKill(
  deps: EnactDeps,
  kill: Omit<Kill, 'at' | 'lifted' | 'ended'>,
  context: Pick<CallContext, 'requestId'>,
  restored = false,
): Promise<RaisedKill> {
  const woken = new Set<string>();
  const raised = await deps.db.transaction({ kill: 'exclusive' }, async (tx): Promise<RaisedKill> => {
    const standing = await findStanding(tx, kill);
    if (standing !== undefined) return { kill: standing, repeated: true };
    const tasks = await endKilledTasks(tx, kill);
    await lapseApprovals(deps, tx, waitingFor(kill, tasks), 'killed', context);
    const grants = await endKilledGrants(tx, kill, tasks);
    const hastened = await hastenKilled(tx, kill);
    for (const target of [...grants.map(({ grant }) => grant.target), ...hastened]) woken.add(target);
    const ended = { tasks: tasks.length, grants: grants.length, hastened: hastened.length };
    const inserted = await insertKill(tx, { ...kill, ended });
    const payload = { ...about(inserted), reason: kill.reason, ...ended, ...(restored ? { restored } : {}) };
    tx.record(
      operatorEvent('kill.raised', deps.catalog, context, kill.by, { resource: resourceOf(inserted), payload }),
    );
    await tellEnds(deps, tx, inserted, tasks, grants, context);
    step('kill.before');
    return { kill: inserted, repeated: false };
  });
  step('kill.after');
  for (const target of woken) deps.alarms.now(target);
  return raised;
}

/**
 * Lets it be asked for again, by an operator's word, or by that of two where the catalog wants it. What the kill has ended stays ended.
 * Said again, it answers the same.
 * @returns what waits for a second person, if nothing was done yet.
 * @throws MayflyError `operator_only`, `not_found`, `second_person_needed`
 */
export async function liftKill(
  deps: BrokerDeps,
  caller: Caller,
  id: KillId,
  reason: string | null,
  context: CallContext,
): Promise<Kill | AwaitsSecond> {
  // Stopping goes by whatever catalog there is; letting go on only by the one in force.
  const active = revisionOf(deps, caller);
  const { operator, scope } = requireRole(deps, caller, 'operator');
  const kill = await deps.db.transaction({ catalog: 'shared' }, async (tx) => {
    requireRevision(active, await findActiveRevisionNumber(tx));
    const found = await holdKill(tx, id);
    if (found === undefined || !isWithin(scope, found.targets)) throw new MayflyError('not_found');
    if (found.lifted !== null) return found;
    const agreed = takesTwo(active.catalog, 'lift_kill')
      ? await agree(
          deps,
          tx,
          personOf(active.catalog, caller),
          { operation: 'lift_kill', resource: wireId('kill', id), said: [active.number, id, reason] },
          context,
        )
      : undefined;
    if (agreed !== undefined && 'awaits' in agreed) return agreed.awaits;
    const lifted = await markLifted(tx, id, operator, reason);
    if (lifted === undefined) throw new Error('The kill was lifted while it was held.');
    const payload = {
      ...{ ...about(lifted), reason, raised_by: lifted.by, raised_at: lifted.at.toISOString() },
      ...(agreed && { first_person: agreed.first.name }),
    };
    tx.record(operatorEvent('kill.lifted', deps.catalog, context, operator, { resource: resourceOf(lifted), payload }));
    step('lift.before');
    return lifted;
  });
  step('lift.after');
  if ('lifted' in kill) deps.kept.remember(kill);
  return kill;
}

/** Tells an agent that it is stopped: not by whom, nor why, nor what else. */
export function killedProblem(): MayflyError {
  return new MayflyError('killed');
}

/** What the store calls it, and the targets that it reaches to: null where that is any. @throws MayflyError */
async function named(
  deps: BrokerDeps,
  request: KillRequest,
  within: ScopedTargets,
): Promise<Killed & Pick<Kill, 'targets'>> {
  const { scope } = request;
  if (scope === 'task' || scope === 'entitlement' || scope === 'target') {
    const targets = scope === 'task' ? await targetsOfTask(deps, request.id) : [targetOf(request.id)];
    if (!isWithin(within, targets)) throw new MayflyError('not_found');
    if (scope === 'task') return { scope, subject: wireId('task', request.id), targets };
    const { catalog } = deps.catalog.current();
    const known = scope === 'target' ? catalog.targets.has(request.id) : catalog.entitlements.has(request.id);
    return { ...(await thatExists(deps, known, { scope, subject: request.id })), targets };
  }
  requireEverywhere({ scope: within });
  if (scope === 'all') return { scope, subject: '', targets: null };
  const { trust } = deps.catalog.current().catalog;
  if (scope === 'agent') {
    const known = trust.workloadSources.some(({ name }) => request.id.startsWith(`${name}:`));
    return { ...(await thatExists(deps, known, { scope, subject: request.id })), targets: null };
  }
  const issuer = [...trust.taskIssuers, ...trust.tokenIssuers].find((one) =>
    [one.name, one.issuer].includes(request.id),
  );
  const killed = { scope, subject: issuer?.issuer ?? request.id };
  return { ...(await thatExists(deps, issuer !== undefined, killed)), targets: null };
}

/** @param known The catalog names it. @throws MayflyError `not_found` where nothing alive bears the name either. */
async function thatExists(deps: BrokerDeps, known: boolean, killed: Killed): Promise<Killed> {
  if (!known && !(await hasLiving(deps.db, killed))) throw new MayflyError('not_found');
  return killed;
}

async function targetsOfTask(deps: BrokerDeps, id: TaskId): Promise<string[]> {
  const task = await findTask(deps.db, id);
  if (task === undefined) throw new MayflyError('not_found');
  return [...new Set(task.ceiling.entitlements.map(targetOf))];
}

/** Of `<target>/<name>`, also of an entitlement that the catalog does not know; a target is its own. */
function targetOf(name: string): string {
  return name.replace(/\/.*$/, '');
}

/** Whoever stops a thing for all its targets, or lifts that, must have all of them in scope. */
function isWithin(scope: ScopedTargets, targets: readonly string[] | null): boolean {
  if (scope === null) return true;
  return targets !== null && targets.length > 0 && targets.every((target) => isTargetInScope(scope, target));
}

/** What it names may be approved no more, nor collected. */
function waitingFor({ scope, subject }: Killed, tasks: readonly Task[]): Lapsing {
  if (scope === 'target') return { kind: 'target', target: subject, entitlement: null };
  if (scope === 'entitlement') return { kind: 'target', target: targetOf(subject), entitlement: subject };
  return { kind: 'tasks', ids: tasks.map(({ id }) => id) };
}

async function endKilledGrants(
  tx: Transaction,
  { scope, subject }: Killed,
  tasks: readonly Task[],
): Promise<GrantWithRevocation[]> {
  if (scope === 'target') return await endGrantsOn(tx, subject, null, 'operator');
  if (scope === 'entitlement') return await endGrantsOn(tx, targetOf(subject), subject, 'operator');
  const ids = tasks.map(({ id }) => id);
  return ids.length === 0 ? [] : await endGrantsOfTasks(tx, ids, true);
}

/** Each end has its evidence. Who and why stands with the kill alone: owners read these. */
async function tellEnds(
  deps: EnactDeps,
  tx: Transaction,
  kill: Kill,
  tasks: readonly Task[],
  grants: readonly GrantWithRevocation[],
  context: Pick<CallContext, 'requestId'>,
): Promise<void> {
  const digest = digestInForce(deps.catalog);
  const byId = new Map(tasks.map((task) => [task.id, task]));
  const others = new Set(grants.map(({ grant }) => grant.taskId).filter((id) => !byId.has(id)));
  for (const task of others.size === 0 ? [] : await findTasks(tx, [...others])) byId.set(task.id, task);
  const payload = { kill_id: wireId('kill', kill.id) };
  for (const task of tasks) {
    tx.record(taskEvent(eventOf(task.state), task, digest, context, { cause: task.endedBy ?? 'none', payload }));
    tx.changed(task.id);
    if (task.parentId !== null) tx.changed(task.parentId);
  }
  for (const { grant, revocation } of grants) {
    const owner = byId.get(grant.taskId);
    if (owner === undefined) continue;
    tx.changed(owner.id);
    tx.record(
      grantEvent('grant.ended', owner, grant, digest, context, {
        cause: grant.endedBy ?? 'none',
        payload: { revocation_id: wireId('rev', revocation.id), ...payload },
      }),
    );
  }
}

function about({ id, scope, subject }: Kill) {
  return { kill_id: wireId('kill', id), scope, ...(scope === 'all' ? {} : { subject }) };
}

function resourceOf({ scope, subject }: Killed): string {
  return scope === 'all' ? 'all' : subject;
}
