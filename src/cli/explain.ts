import type { Command } from 'commander';
import { z } from 'zod';
import { decisionsPageBody, type DecisionView, type ExplainedBody, explainedBody } from '../http/decision-bodies.ts';
import { CliError } from './fail.ts';
import { callAsOperator } from './operator.ts';
import { say, styled, table } from './output.ts';

interface ReplayFlags {
  readonly task?: string;
  readonly since?: string;
  readonly json?: boolean;
}

const PAGE = 200;

/** `mayfly explain`. */
export function addExplainCommand(program: Command): void {
  program
    .command('explain <id>')
    .description('Why it was permitted or denied: of a grant (grt_…) or a decision (dec_…), for operators.')
    .option('--json', 'as JSON')
    .action(async (id: string, { json }: { json?: boolean }) => {
      const explained = await callAsOperator('GET', `/v1/decisions/${await decisionOf(id)}`, explainedBody);
      if (json === true) return say(JSON.stringify(explained, null, 2));
      tell(explained);
    });
}

/** `mayfly replay`. */
export function addReplayCommand(program: Command): void {
  program
    .command('replay')
    .description(
      'Decide past decisions again, each from its own inputs by its own revision. Fails where one comes out differently.',
    )
    .option('--task <id>', 'only those of a task')
    .option('--since <time>', 'only those made at this time or later (RFC 3339)')
    .option('--json', 'those that came out differently, as JSON')
    .action(replay);
}

/** The decision that made a grant, or last renewed it. */
async function decisionOf(id: string): Promise<string> {
  if (!id.startsWith('grt_')) return encodeURIComponent(id);
  const grant = z.object({ decision_id: z.string() });
  return (await callAsOperator('GET', `/v1/grants/${encodeURIComponent(id)}`, grant)).decision_id;
}

function tell(explained: ExplainedBody): void {
  const { id, decision, refusal, limit, action, resource, task_id: task, catalog, replay: again } = explained;
  const answer = decision === 'permit' ? styled('green', 'PERMIT') : styled('red', 'DENY');
  say(`${id}: ${answer} ${action} ${resource}${task === undefined ? '' : `, for ${task}`}, at ${explained.decided_at}`);
  if (refusal !== undefined) say(`Refused all the same: ${refusal}${limit === undefined ? '' : ` (limit ${limit})`}`);
  if (explained.grant_id !== undefined) say(`Grant: ${explained.grant_id}`);
  if (explained.max_ttl_seconds !== undefined) say(`Capped at ${explained.max_ttl_seconds} seconds`);
  for (const error of explained.errors) say(`${styled('red', 'A policy failed')}: ${error}`);
  say(`Revision ${explained.revision} (${catalog.digest}), applied by ${catalog.applied_by} at ${catalog.applied_at}`);
  if (explained.approval !== undefined) tellApproval(explained.approval);
  say(`Decided again from the same inputs: ${again}\n`);
  if (explained.determined_by.length === 0) say('No policy permits it.');
  for (const { file, line, text } of explained.determined_by) say(`${file}:${line}\n${text.trim()}\n`);
  say(`Inputs:\n${JSON.stringify(explained.inputs, null, 2)}`);
}

function tellApproval({ id, state, because, groups, words }: NonNullable<ExplainedBody['approval']>): void {
  say(`Approval by ${groups.join(' and ')}: ${state}${because === undefined ? '' : ` (${because})`} (${id})`);
  for (const { at, by, decision, reason } of words) say(`  ${at} ${decision} by ${by}: ${reason}`);
}

async function replay({ task, since, json }: ReplayFlags): Promise<void> {
  const from = since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(since);
  if (Number.isNaN(from)) throw new CliError('--since must be a time like 2026-01-05T10:00:00Z.');
  const counts = { identical: 0, different: 0, impossible: 0 };
  const different: DecisionView[] = [];
  let cursor: string | null = '';
  while (cursor !== null) {
    const query = new URLSearchParams({ limit: String(PAGE), ...(task && { task }), ...(cursor && { cursor }) });
    const page = await callAsOperator('GET', `/v1/decisions?${query.toString()}`, decisionsPageBody);
    const wanted = page.items.filter(({ decided_at: at }) => Date.parse(at) >= from);
    for (const item of wanted) {
      counts[item.replay] += 1;
      if (item.replay === 'different') different.push(item);
    }
    cursor = wanted.length < page.items.length ? null : page.next_cursor;
  }
  if (json === true) say(JSON.stringify(different, null, 2));
  else {
    const rows = different.map(({ id, action, resource, decided_at: at }) => [id, action, resource, at]);
    if (rows.length > 0) say(table([['DECISION', 'ACTION', 'RESOURCE', 'AT'], ...rows]));
    say(`${counts.identical} identical, ${counts.different} different, ${counts.impossible} not made by a policy.`);
  }
  if (different.length > 0) throw new CliError('Decisions came out differently from what is recorded of them.');
}
