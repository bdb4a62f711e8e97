import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { PolicyDecision, PolicyEngine } from '../policy/types.ts';
import type { Living } from '../store/drift.ts';
import type { TaskState } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import { checkAlive } from './life.ts';
import { checkParams } from './params.ts';
import { unapproved } from './needed-approvals.ts';
import { policyRequest } from './policy-request.ts';
import { fallenOf } from './standing.ts';

/** Whether a living grant stays. */
export type Retained =
  /** @param reported Policies that are only told, and would end it. @param unneeded Groups that approved it, and would not have to now. */
  | { readonly kind: 'stays'; readonly reported?: readonly string[]; readonly unneeded?: readonly string[] }
  /** @param because `denied_by_policy`, `approval_required` (policy permits it, once approved), or what it stood on and is gone. */
  | {
      readonly kind: 'drifted';
      readonly because: string;
      readonly policy: PolicyDecision | null;
      /** Of `approval_required`: the groups that have not approved it. */
      readonly groups?: readonly string[];
    }
  /** Policy could not say: then nothing is revoked by it. */
  | { readonly kind: 'failed'; readonly errors: readonly string[] }
  /** Its task is over, and it ends by that. */
  | { readonly kind: 'over' };

/** What decides: a revision, be it active or not. */
export interface Judge {
  readonly catalog: Catalog;
  readonly policy: Pick<PolicyEngine, 'decide'>;
}

/** Decides the grant again (`retain`) on its task as it is now. Permission only: no deadline is moved by it. Never throws. */
export function retainGrant(judge: Judge, living: Living, read: TaskState): Retained {
  try {
    return decide(judge, living, read);
  } catch (error) {
    // One that can not even be put to policy must not keep the others from being decided.
    return { kind: 'failed', errors: [error instanceof Error ? error.message : String(error)] };
  }
}

function decide({ catalog, policy }: Judge, living: Living, read: TaskState): Retained {
  const drifted = (because: string): Retained => ({ kind: 'drifted', because, policy: null });
  const fallen = fallenOf(catalog, read.task);
  if (fallen !== undefined) return drifted(fallen);
  const entitlement = catalog.entitlements.get(living.entitlement);
  if (entitlement === undefined) return drifted('entitlement_gone');
  const target = catalog.targets.get(living.target);
  if (target === undefined || entitlement.target !== target.name) return drifted('target_gone');
  let state: TaskState;
  try {
    checkAlive(read.task, read.now);
    state = withinAncestors(read);
    if (!state.task.ceiling.entitlements.includes(entitlement.name)) return drifted('not_in_task');
    checkParams(entitlement, state.task.ceiling.params);
  } catch (error) {
    if (!(error instanceof MayflyError)) throw error;
    return error.code === 'task_ended' ? { kind: 'over' } : drifted(error.code);
  }
  const decision = policy.decide(
    policyRequest(catalog, state, {
      ...{ action: 'retain', entitlement, target, guarantee: living.guarantee },
      seconds: Math.max(0, (living.deadline.getTime() - state.now.getTime()) / 1000),
      // As when it was asked for: what its tree holds beside it.
      grant: living,
    }),
  );
  if (decision.errors.length > 0) return { kind: 'failed', errors: decision.errors };
  if (!decision.permitted) return { kind: 'drifted', because: 'denied_by_policy', policy: decision };
  // It would not be given now without somebody's word.
  const missing = unapproved(catalog.limits, entitlement.name, decision, living.approved);
  if (missing.length > 0) return { kind: 'drifted', because: 'approval_required', policy: decision, groups: missing };
  const wanted = living.approved.length === 0 ? [] : unapproved(catalog.limits, entitlement.name, decision, []);
  const unneeded = living.approved.filter((group) => !wanted.includes(group));
  return {
    kind: 'stays',
    ...(decision.reported && { reported: decision.reported }),
    ...(unneeded.length > 0 && { unneeded }),
  };
}
