import type { Command } from 'commander';
import { approvalsPageBody, type ApprovalView, approvalView } from '../http/approval-bodies.ts';
import { callAsOperator } from './operator.ts';
import { say, styled, table } from './output.ts';

interface ListFlags {
  readonly state?: string;
  readonly task?: string;
  readonly limit?: string;
  readonly cursor?: string;
  readonly json?: boolean;
}

interface DecideFlags {
  readonly reason: string;
  readonly json?: boolean;
}

const decisions = {
  approve: 'Let it be collected, once, exactly as it was asked for.',
  deny: 'Nothing comes of it.',
  withdraw: 'Take an approval back: what lives of it ends.',
} as const;

/** `mayfly approvals`. */
export function addApprovalCommands(program: Command): void {
  const approvals = program.command('approvals').description('What waits for an approval, and deciding it.');
  approvals
    .command('list')
    .description('The approvals, the latest first.')
    .option('--state <state>', 'pending, approved, denied, lapsed, withdrawn or collected')
    .option('--task <id>', 'only those of a task')
    .option('--limit <items>', 'at most so many')
    .option('--cursor <cursor>', 'go on where a page ended')
    .option('--json', 'as JSON')
    .action(list);
  approvals
    .command('show <id>')
    .description('All there is to know before it is decided.')
    .option('--json', 'as JSON')
    .action(async (id: string, { json }: { json?: boolean }) =>
      tell(await callAsOperator('GET', `/v1/approvals/${encodeURIComponent(id)}`, approvalView), json),
    );
  for (const [decision, says] of Object.entries(decisions)) {
    approvals
      .command(`${decision} <id>`)
      .description(says)
      .requiredOption('--reason <text>', 'why, for the evidence')
      .option('--json', 'as JSON')
      .action(async (id: string, { reason, json }: DecideFlags) => {
        const path = `/v1/approvals/${encodeURIComponent(id)}`;
        tell(await callAsOperator('POST', path, approvalView, { decision, reason }), json);
      });
  }
}

async function list({ json, ...asked }: ListFlags): Promise<void> {
  const query = new URLSearchParams(
    Object.entries(asked).flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, value]])),
  );
  const page = await callAsOperator('GET', `/v1/approvals?${query.toString()}`, approvalsPageBody);
  if (json === true) return say(JSON.stringify(page, null, 2));
  if (page.items.length === 0) return say('There is none.');
  const head = ['APPROVAL', 'STATE', 'BY', 'ENTITLEMENT', 'WORKLOAD', 'FOR', 'SECONDS', 'UNTIL'];
  const rows = page.items.map((item) => [
    ...[item.id, item.state, item.groups.join(' + '), item.entitlement, item.workload, item.subject],
    ...[String(item.ttl_seconds), item.expires_at],
  ]);
  say(table([head, ...rows]));
  if (page.next_cursor !== null) say(`\nThere is more: --cursor ${page.next_cursor}`);
}

function tell(approval: ApprovalView, json: boolean | undefined): void {
  if (json === true) return say(JSON.stringify(approval, null, 2));
  const { id, state, because, groups, still_needed: needed, words, params } = approval;
  say(`${id}: ${stateOf(state)}${because === undefined ? '' : ` (${because})`}, by ${groups.join(' and ')}`);
  if (state === 'pending') say(`Still needed: ${needed.join(' and ')}, until ${approval.expires_at}`);
  if (state === 'approved') say(`To be collected until ${approval.expires_at}`);
  for (const { at, by, decision, reason } of words) say(`  ${at} ${decision} by ${by}: ${reason}`);
  say(
    `\n${approval.entitlement} for ${approval.ttl_seconds} seconds${approval.per_call ? ', for one call only' : ''}, ${JSON.stringify(params)}`,
  );
  say(`Asked by ${approval.workload} on behalf of ${approval.subject}, stated by ${approval.issuer}`);
  for (const { task_id: task, workload, subject } of approval.above)
    say(`  below ${task}: ${workload} on behalf of ${subject}`);
  const phase = approval.phase === null ? '' : `, phase ${approval.phase}`;
  say(`For ${approval.purpose}${phase} (${approval.task_id}, until ${approval.task_not_after})`);
  say(`Because: ${approval.justification ?? '(it did not say)'}`);
  say(`Taken back: ${approval.guarantee.says} (${approval.guarantee.revocation})`);
  say(
    `Permitted by ${approval.policies.join(', ')} of revision ${approval.revision}; ${approval.grant_id} is ${approval.grant_state}`,
  );
  say(`Definition:\n${JSON.stringify(approval.definition, null, 2)}`);
}

function stateOf(state: ApprovalView['state']): string {
  if (state === 'approved' || state === 'collected') return styled('green', state.toUpperCase());
  return state === 'pending' ? state.toUpperCase() : styled('red', state.toUpperCase());
}
