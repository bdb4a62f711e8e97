import type { Fault } from './faults.ts';
import type { Catalog, OperatorSource, RoleBinding } from './types.ts';

/**
 * Groups that policies and limits want approvals of, and that nobody can be in and approve: what is permitted by them would wait in vain.
 */
export function approvalFaults({ trust, policySet, limits }: Catalog): readonly Fault[] {
  const groups = new Set(trust.operators.filter(mayApprove).flatMap(({ groups: of = {} }) => Object.values(of).flat()));
  const unknown = (group: string) =>
    `nobody can approve as ${group}: no source of operators with the role approver has it under \`groups\``;
  const policies = policySet.policies.flatMap(({ id, file, line, annotations }): readonly Fault[] => {
    const { require_approval: group } = annotations;
    return group === undefined || groups.has(group)
      ? []
      : [{ file, line, path: '', message: `${id}: ${unknown(group)}` }];
  });
  const rules = (limits.approvals ?? []).flatMap(({ name, group }): readonly Fault[] =>
    groups.has(group) ? [] : [{ file: 'limits.yaml', line: 1, path: '', message: `${name}: ${unknown(group)}` }],
  );
  return [...policies, ...rules];
}

/** Whether some value of its claim gives the role. */
function mayApprove({ roles }: OperatorSource): boolean {
  const gives = (binding: RoleBinding): boolean => {
    const held = typeof binding === 'string' ? [binding] : binding.roles;
    return held.some((role) => role === 'approver' || role === 'admin');
  };
  return Object.values(roles).flat().some(gives);
}
