import type { TargetDefinition } from '../catalog/types.ts';
import type { Caller } from '../identity/types.ts';
import { findReconciliations, type Reconciliation } from '../store/reconciliations.ts';
import { listPauses, type Pause } from '../store/target-controls.ts';
import type { BrokerDeps } from './deps.ts';
import { isTargetInScope, requireRole } from './operator-scope.ts';

export interface ListedTarget {
  readonly name: string;
  /** Undefined for one that is paused and was dropped from the catalog. */
  readonly definition: TargetDefinition | undefined;
  readonly pause: Pause | undefined;
  /** Undefined before the first. */
  readonly reconciliation: Reconciliation | undefined;
}

/** A page of the targets in the caller's scope, by name: those of the active catalog, and whatever else is paused. */
export async function listTargets(
  deps: BrokerDeps,
  caller: Caller,
  after: string | null,
  limit: number,
): Promise<{ readonly items: readonly ListedTarget[]; readonly next: string | undefined }> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const { targets } = deps.catalog.current().catalog;
  const pauses = new Map((await listPauses(deps.db)).map((pause) => [pause.target, pause]));
  const names = [...new Set([...targets.keys(), ...pauses.keys()])]
    .filter((name) => isTargetInScope(scope, name) && name > (after ?? ''))
    .sort();
  const page = names.slice(0, limit);
  const runs = new Map((await findReconciliations(deps.db, page)).map((run) => [run.target, run]));
  return {
    items: page.map((name) => ({
      name,
      definition: targets.get(name),
      pause: pauses.get(name),
      reconciliation: runs.get(name),
    })),
    next: names.length > limit ? page.at(-1) : undefined,
  };
}
