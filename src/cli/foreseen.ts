import type { WhatIfBody } from '../http/what-if-bodies.ts';
import { table } from './output.ts';

/** Lines of each list that are shown to a person; `--json` has more. */
const SHOWN = 50;

/** What would end, by task and owner, for people. */
export function renderDrift(drift: WhatIfBody['drift']): string {
  const { living, would_end: ends, undecidable, reported, tasks } = drift;
  const failed =
    (undecidable === 0 ? '' : ` Policy fails for ${undecidable} of them: nothing like those would be issued.`) +
    (reported === 0 ? '' : ` Policies that are only told would end ${reported}.`) +
    drift.approvals.map(saidApproval).join('');
  if (ends === 0) return `Of ${living} living grants none would end.${failed}`;
  const rows = tasks
    .flatMap(({ task, workload, grants }) =>
      grants.map(({ entitlement, because, groups }) => [
        ...[`  ${task}`, workload, entitlement],
        [because, ...approvers(groups)].join(' '),
      ]),
    )
    .slice(0, SHOWN);
  return [
    `Of ${living} living grants ${ends} would end.${failed}`,
    table(rows),
    ...more(ends - rows.length),
    `To apply it whatever its share: --expect-revoked ${ends}`,
  ].join('\n');
}

/** What was decided in the last day and would come out otherwise, for people. */
export function renderDecisions(decisions: WhatIfBody['decisions']): string {
  const { looked, sampled, newly_denied: denied, newly_permitted: permitted, unchanged, failed } = decisions;
  const { newly_to_be_approved: newlyApproved, no_longer_to_be_approved: noLonger } = decisions;
  const which = sampled ? `the newest ${looked} decisions of the last day` : `${looked} decisions of the last day`;
  const counts = [
    `${denied} newly denied`,
    `${permitted} newly permitted`,
    `${unchanged} as they were`,
    ...(newlyApproved === 0 ? [] : [`${newlyApproved} newly to be approved`]),
    ...(noLonger === 0 ? [] : [`${noLonger} no longer to be approved`]),
    ...(failed === 0 ? [] : [`policy fails for ${failed}`]),
    ...(decisions.reported === 0 ? [] : [`policies that are only told would deny ${decisions.reported}`]),
    ...(decisions.impossible === 0 ? [] : [`${decisions.impossible} not made by a policy`]),
  ];
  const rows = decisions.changed
    .slice(0, SHOWN)
    .map(({ decision, task, workload, action, resource, because, policies, ...by }) => [
      `  ${signOf(decision, by)} ${action}`,
      resource,
      workload ?? '-',
      task ?? '-',
      [
        ...(because === null ? [] : [because]),
        ...approvers(by.newly_approved_by),
        ...(by.no_longer_approved_by === undefined
          ? []
          : [`no more approval by ${by.no_longer_approved_by.join(', ')}`]),
        ...(policies.length === 0 ? [] : [`(${policies.join(', ')})`]),
      ].join(' '),
    ]);
  const owners = decisions.workloads.items
    .slice(0, SHOWN)
    .map((one) => [`  ${one.workload}`, `${one.newly_denied} denied`, `${one.newly_permitted} permitted`]);
  return [
    `Of ${which}: ${counts.join(', ')}.${decisions.approvals.map(saidApproval).join('')}`,
    ...(rows.length === 0 ? [] : [table(rows), ...more(denied + permitted + newlyApproved + noLonger - rows.length)]),
    ...(owners.length === 0 ? [] : ['By owner:', table(owners)]),
    ...more(decisions.workloads.total - owners.length),
  ].join('\n');
}

/** Tasks that stay suspended by sources that are not heard any more, for people; none: nothing. */
export function renderLeft(left: WhatIfBody['left_suspended']): string[] {
  return left.map(
    ({ source, kind, tasks }) =>
      `${tasks} tasks stay suspended by ${source} (${kind}), which the catalog does not hear on that, until an operator resumes them.`,
  );
}

type Approvals = WhatIfBody['decisions']['approvals'];
type ApprovedBy = Pick<WhatIfBody['decisions']['changed'][number], 'newly_approved_by' | 'no_longer_approved_by'>;

function saidApproval({ group, newly_needed: newly, no_longer_needed: noLonger }: Approvals[number]): string {
  return [
    ...(newly === 0 ? [] : [` ${group} would newly have to approve ${newly}.`]),
    ...(noLonger === 0 ? [] : [` ${group} would no longer have to approve ${noLonger}.`]),
  ].join('');
}

function approvers(groups: readonly string[] | undefined): string[] {
  return groups === undefined ? [] : [`by ${groups.join(', ')}`];
}

/** Permitted as before, but for who must approve it: `~`. */
function signOf(decision: 'permit' | 'deny', by: ApprovedBy): '-' | '+' | '~' {
  if (decision === 'deny') return '-';
  return by.newly_approved_by === undefined && by.no_longer_approved_by === undefined ? '+' : '~';
}

function more(count: number): string[] {
  return count > 0 ? [`  … and ${count} more`] : [];
}
