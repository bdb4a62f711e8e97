import { type Command, InvalidArgumentError } from 'commander';
import { reachBody, type ReachBody } from '../http/reach-bodies.ts';
import { callAsOperator } from './operator.ts';
import { counted, say, styled, table } from './output.ts';

interface ReachFlags {
  readonly limit?: string;
  readonly cursor?: string;
  readonly json?: boolean;
}

/** `mayfly reach`. */
export function addReachCommand(program: Command): void {
  program
    .command('reach')
    .argument('<what>', 'a workload (<source>:<subject>), a task (task_…) or an entitlement (<target>/<name>)', pathOf)
    .description('Blast radius: what it reaches now, and what could be asked for. For operators.')
    .option('--limit <tasks>', 'at most so many tasks')
    .option('--cursor <cursor>', 'go on where a page ended')
    .option('--json', 'as JSON')
    .action(async (path: string, { limit, cursor, json }: ReachFlags) => {
      const query = new URLSearchParams({ ...(limit && { limit }), ...(cursor && { cursor }) });
      const reach = await callAsOperator('GET', `${path}/reach?${query.toString()}`, reachBody);
      if (json === true) return say(JSON.stringify(reach, null, 2));
      tell(reach);
    });
}

/** No name in a catalog holds a colon, and every workload's id does; its subject may hold slashes. */
function pathOf(what: string): string {
  if (what.startsWith('task_')) return `/v1/tasks/${encodeURIComponent(what)}`;
  if (what.includes(':')) return `/v1/workloads/${encodeURIComponent(what)}`;
  const [target = '', name = '', ...more] = what.split('/');
  if (target === '' || name === '' || more.length > 0)
    throw new InvalidArgumentError('It must be <source>:<subject>, task_… or <target>/<name>.');
  return `/v1/entitlements/${encodeURIComponent(target)}/${encodeURIComponent(name)}`;
}

function tell({ of, id, tasks, grants, items, next_cursor: cursor }: ReachBody): void {
  say(`${of} ${id}: ${counted(grants, 'grant')} not yet contained, ${counted(tasks, 'task')}`);
  for (const { task_id: taskId, workload, task, holds, could } of items) {
    const phase = task?.phase === undefined || task.phase === null ? '' : `/${task.phase}`;
    const what = task === undefined ? '' : `, ${task.state}, ${task.purpose}${phase}, until ${task.not_after}`;
    say(`\n${taskId}: ${workload}${what}`);
    const held = holds.items.map(({ grant_id: grant, entitlement, state, until, guarantee }) => [
      ...['  holds', entitlement, grant, state, `until ${until}`, guarantee],
    ]);
    if (held.length > 0) say(table(held));
    if (holds.total > held.length) say(`  … and ${holds.total - held.length} more`);
    const rows = could.map(({ entitlement, answer, because, policies, obligations, ttl_seconds: seconds }) => [
      '  could',
      entitlement,
      answer === 'permitted' ? styled('red', 'permitted') : answer,
      [
        ...(because === null ? [] : [because]),
        ...(seconds === null ? [] : [`${seconds} s`]),
        ...obligations,
        ...(policies.length === 0 ? [] : [`(${policies.join(', ')})`]),
      ].join(' '),
    ]);
    if (rows.length > 0) say(table(rows));
  }
  if (cursor !== null) say(`\nThere is more: --cursor ${cursor}`);
}
