import type { ActiveRevision } from '../catalog/active.ts';
import type { PolicyDecision } from '../policy/types.ts';
import type { Living } from '../store/drift.ts';
import type { TaskState } from '../store/tasks.ts';
import { retainGrant } from './retain-grant.ts';

/** Whether what is not permitted any more would be without signals, or is forbidden by a policy that without them says nothing. */
export function isBySignal(
  active: ActiveRevision,
  living: Living,
  state: TaskState,
  { policy }: { readonly policy: PolicyDecision | null },
): boolean {
  if (living.signalled === null || policy === null) return false;
  const { signals: _, ...seen } = state.seen;
  const without = retainGrant(active, living, { ...state, seen });
  if (without.kind === 'stays') return true;
  // It would not live by drift either; but a signal forbids it by a policy that then had nothing to say.
  if (without.kind !== 'drifted' || policy.permitted) return false;
  return policy.policies.some((id) => without.policy?.policies.includes(id) !== true);
}
