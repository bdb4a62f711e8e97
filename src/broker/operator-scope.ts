import { isInScope } from '../catalog/operator-bindings.ts';
import type { OperatorRole } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import { findAnyGrant, type ReadGrant } from '../store/grants.ts';
import type { OwnedGrant } from '../store/owned-grants.ts';
import { findOwnedRoot, findTask } from '../store/tasks.ts';
import type { BrokerDeps } from './deps.ts';

/**
 * Names of the targets that an operator may have to do with. Null: all, also those that left the catalog; nothing says any more in
 * whose scope these are.
 */
export type ScopedTargets = ReadonlySet<string> | null;

/** An operator in one of its roles. */
export interface Acting {
  readonly operator: string;
  readonly scope: ScopedTargets;
}

/**
 * What only operators do. `admin` may do everything, and who has any role may look; each where the role holds, by the catalog in
 * force.
 * @throws MayflyError `operator_only` unless the caller is an operator who has that role somewhere.
 */
export function requireRole(deps: Pick<BrokerDeps, 'catalog'>, caller: Caller, role: OperatorRole): Acting {
  if (caller.kind !== 'operator') throw new MayflyError('operator_only');
  const gives = (held: OperatorRole) => held === role || held === 'admin' || role === 'viewer';
  const holding = caller.roles.filter((binding) =>
    typeof binding === 'string' ? gives(binding) : binding.roles.some(gives),
  );
  if (holding.length === 0) throw new MayflyError('operator_only');
  const scopes = holding.flatMap((binding) => (typeof binding === 'string' ? [] : [binding.scope]));
  if (scopes.length < holding.length) return { operator: caller.operator, scope: null };
  const targets = [...deps.catalog.current().catalog.targets.values()];
  const inScope = targets.filter((target) => scopes.some((scope) => isInScope(scope, target)));
  return { operator: caller.operator, scope: new Set(inScope.map(({ name }) => name)) };
}

/** @throws MayflyError `operator_only` unless the role holds for all targets: what is asked reaches to any. */
export function requireEverywhere({ scope }: Pick<Acting, 'scope'>): void {
  if (scope !== null) throw new MayflyError('operator_only', 'This takes an operator whose role holds everywhere.');
}

/** What is out of scope is as unknown as what does not exist. @throws MayflyError `not_found` */
export function requireInScope(scope: ScopedTargets, target: string): void {
  if (!isTargetInScope(scope, target)) throw new MayflyError('not_found');
}

export function isTargetInScope(scope: ScopedTargets, target: string): boolean {
  return scope === null || scope.has(target);
}

/** A task is in scope with all that it may ask for: nobody ends or reads a part of it. Its descendants may ask for no more. */
function isTaskInScope(scope: ScopedTargets, { ceiling }: Task): boolean {
  if (scope === null) return true;
  // `<target>/<name>`, also of an entitlement that the catalog does not know.
  const targets = ceiling.entitlements.map((entitlement) => entitlement.slice(0, entitlement.indexOf('/')));
  return targets.length > 0 && targets.every((target) => scope.has(target));
}

/**
 * The root of the tree of a task that the caller owns or, as an operator in that role, has in scope. Says which lock to take.
 * @throws MayflyError `not_found`, `operator_only`
 */
export async function findRootFor(deps: BrokerDeps, caller: Caller, role: OperatorRole, id: TaskId): Promise<TaskId> {
  if (caller.kind === 'workload') {
    const rootId = await findOwnedRoot(deps.db, id, caller);
    if (rootId === undefined) throw new MayflyError('not_found');
    return rootId;
  }
  const { scope } = requireRole(deps, caller, role);
  const task = await findTask(deps.db, id);
  if (task === undefined || !isTaskInScope(scope, task)) throw new MayflyError('not_found');
  return task.rootId;
}

/**
 * A grant that the caller owns or, as an operator in that role, has in scope.
 * @throws MayflyError `not_found`, `operator_only`
 */
export async function findGrantFor(
  deps: BrokerDeps,
  caller: Caller,
  role: OperatorRole,
  id: GrantId,
): Promise<OwnedGrant> {
  const scope = caller.kind === 'workload' ? null : requireRole(deps, caller, role).scope;
  const found = await deps.ownedGrants.find(id, caller.kind === 'workload' ? caller : null);
  if (found === null) throw new MayflyError('not_found');
  requireInScope(scope, found.grant.target);
  return found;
}

/**
 * The same, and also one of which nothing was made: it waits for an approval, or was denied.
 * @throws MayflyError `not_found`, `operator_only`
 */
export async function findAnyGrantFor(
  deps: BrokerDeps,
  caller: Caller,
  role: OperatorRole,
  id: GrantId,
): Promise<ReadGrant> {
  const scope = caller.kind === 'workload' ? null : requireRole(deps, caller, role).scope;
  const owner = caller.kind === 'workload' ? caller : null;
  // Most have been minted, and are asked for together.
  const found = (await deps.ownedGrants.find(id, owner)) ?? (await findAnyGrant(deps.db, id, owner));
  if (found === undefined) throw new MayflyError('not_found');
  requireInScope(scope, found.grant.target);
  return found;
}
