import type { WhatIfBody } from '../http/what-if-bodies.ts';
import { table } from './output.ts';

/** Lines of each list that are shown to a person; `--json` has more. */
const SHOWN = 50;

/** What would end, by task and owner, for people. */
export function renderDrift({ living, would_end: ends, undecidable, reported, tasks }: WhatIfBody['drift']): string {
  const failed =
    (undecidable === 0 ? '' : ` Policy fails for ${undecidable} of them: nothing like those would be issued.`) +
    (reported === 0 ? '' : ` Policies that are only told would end ${reported}.`);
  if (ends === 0) return `Of ${living} living grants none would end.${failed}`;
  const rows = tasks
    .flatMap(({ task, workload, grants }) =>
      grants.map(({ entitlement, because }) => [`  ${task}`, workload, entitlement, because]),
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
  const which = sampled ? `the newest ${looked} decisions of the last day` : `${looked} decisions of the last day`;
  const counts = [
    `${denied} newly denied`,
    `${permitted} newly permitted`,
    `${unchanged} as they were`,
    ...(failed === 0 ? [] : [`policy fails for ${failed}`]),
    ...(decisions.reported === 0 ? [] : [`policies that are only told would deny ${decisions.reported}`]),
    ...(decisions.impossible === 0 ? [] : [`${decisions.impossible} not made by a policy`]),
  ];
  const rows = decisions.changed
    .slice(0, SHOWN)
    .map(({ decision, task, workload, action, resource, because, policies }) => [
      `  ${decision === 'deny' ? '-' : '+'} ${action}`,
      resource,
      workload ?? '-',
      task ?? '-',
      [because, policies.length === 0 ? null : `(${policies.join(', ')})`].filter((part) => part !== null).join(' '),
    ]);
  const owners = decisions.workloads.items
    .slice(0, SHOWN)
    .map((one) => [`  ${one.workload}`, `${one.newly_denied} denied`, `${one.newly_permitted} permitted`]);
  return [
    `Of ${which}: ${counts.join(', ')}.`,
    ...(rows.length === 0 ? [] : [table(rows), ...more(denied + permitted - rows.length), 'By owner:', table(owners)]),
    ...more(decisions.workloads.total - owners.length),
  ].join('\n');
}

function more(count: number): string[] {
  return count > 0 ? [`  … and ${count} more`] : [];
}
