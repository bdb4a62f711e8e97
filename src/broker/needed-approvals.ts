import type { Limits } from '../catalog/types.ts';
import type { PolicyDecision } from '../policy/types.ts';

/** Groups whose approval is still missing: those that permits name, and those that the catalog wants of the entitlement whatever permits it. */
export function unapproved(
  { approvals = [] }: Limits,
  entitlement: string,
  { approvalGroups }: Pick<PolicyDecision, 'approvalGroups'>,
  approved: readonly string[],
): readonly string[] {
  const wanted = approvals.flatMap(({ of, group }) => (of.includes(entitlement) ? [group] : []));
  return [...new Set([...approvalGroups, ...wanted])].filter((group) => !approved.includes(group)).sort();
}
