import type { ActiveRevision } from '../catalog/active.ts';
import { shortestLife } from '../domain/deadline.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Guarantee } from '../domain/grant.ts';
import type { PolicyDecision } from '../policy/types.ts';
import type { TaskState } from '../store/tasks.ts';
import { withinAncestors } from './ancestors.ts';
import { checkAlive, lifeBounds } from './life.ts';
import { reachedInTree } from './limits.ts';
import { unapproved } from './needed-approvals.ts';
import { checkParams } from './params.ts';
import { policyRequest } from './policy-request.ts';
import { fallenOf } from './standing.ts';

/** What would come of asking for an entitlement now. */
export interface CouldAsk {
  readonly entitlement: string;
  /** `unknown`: the target does not say what it can hold. */
  readonly answer: 'permitted' | 'denied' | 'unknown';
  /** `denied_by_policy`, or the code of what stands in its way; null where it is permitted. */
  readonly because: string | null;
  /** What the caller would be told. */
  readonly reasons: readonly string[];
  readonly policies: readonly string[];
  /** Of a permit: what is demanded with it. */
  readonly obligations: readonly string[];
  /** How long it would live, in seconds. */
  readonly ttlSeconds: number | null;
}

/**
 * Decides an ask without one: as `issueGrant` would, up to what only the store can count (limits beyond a tree). An offered task is
 * asked about as if it were claimed. Writes nothing.
 * @param guarantee Undefined: the target did not say.
 */
export function couldAsk(
  active: ActiveRevision,
  read: TaskState,
  name: string,
  guarantee: Guarantee | undefined,
  stopped: string | undefined,
): CouldAsk {
  try {
    return decide(active, read, name, guarantee, stopped);
  } catch (error) {
    if (error instanceof MayflyError) return denied(name, error.code);
    throw error;
  }
}

function decide(
  active: ActiveRevision,
  read: TaskState,
  name: string,
  guarantee: Guarantee | undefined,
  stopped: string | undefined,
): CouldAsk {
  const { catalog, policy } = active;
  if (read.killed) return denied(name, 'killed');
  if (read.task.state !== 'offered') checkAlive(read.task, read.now);
  const state = withinAncestors(read);
  const entitlement = catalog.entitlements.get(name);
  const target = entitlement && catalog.targets.get(entitlement.target);
  if (entitlement === undefined || target === undefined || !state.task.ceiling.entitlements.includes(name))
    return denied(name, 'not_in_task');
  const fallen = fallenOf(catalog, state.task);
  if (fallen !== undefined) return denied(name, fallen);
  if (stopped !== undefined) return denied(name, stopped);
  if (guarantee === undefined) return { ...denied(name, 'target_unavailable'), answer: 'unknown' };
  checkParams(entitlement, state.task.ceiling.params);
  const bounds = lifeBounds(null, state.task, entitlement, guarantee, state.now);
  const decision = policy.decide(
    policyRequest(catalog, state, {
      ...{ action: 'issue', entitlement, target, guarantee: guarantee.revocation },
      seconds: shortestLife(bounds).seconds,
    }),
  );
  const { permitted, errors, reasons, policies, perCall, maxTtlSeconds } = decision;
  if (errors.length > 0) return { ...denied(name, 'policy_failed'), policies };
  if (!permitted || (perCall && guarantee.one_connection !== true))
    return { ...denied(name, 'denied_by_policy'), reasons, policies };
  const limit = reachedInTree(catalog.limits, name, state.seen.held);
  if (limit !== undefined)
    return { ...denied(name, 'limit_reached'), reasons: limit.reason === null ? [] : [limit.reason], policies };
  const life = shortestLife(maxTtlSeconds === null ? bounds : [...bounds, { by: 'policy', seconds: maxTtlSeconds }]);
  if (life.seconds < Math.max(1, guarantee.min_ttl_seconds)) return denied(name, 'ttl_below_minimum');
  return {
    ...{ entitlement: name, answer: 'permitted', because: null, reasons: [], policies },
    obligations: [
      ...obligationsOf(decision),
      ...unapproved(catalog.limits, name, decision, []).map((group) => `approval:${group}`),
    ],
    ttlSeconds: Math.floor(life.seconds),
  };
}

function obligationsOf({ perCall, sealedDelivery }: PolicyDecision): readonly string[] {
  return [...(perCall ? ['per_call'] : []), ...(sealedDelivery ? ['sealed_delivery'] : [])];
}

function denied(entitlement: string, because: string): CouldAsk {
  return { entitlement, answer: 'denied', because, reasons: [], policies: [], obligations: [], ttlSeconds: null };
}
