import { setTimeout as wait } from 'node:timers/promises';
import type { Command } from 'commander';
import { z } from 'zod';
import { ProblemError } from '../client/index.ts';
import { awaitingBody } from '../http/awaiting.ts';
import { type PauseBody, type QueuedBody, type QueuePageBody, queuePageBody, storyBody } from '../http/queue-bodies.ts';
import { tellAwaiting } from './awaiting.ts';
import { CliError, explain } from './fail.ts';
import { callAsOperator } from './operator.ts';
import { note, say, styled, table } from './output.ts';
import { untilSignal } from './signals.ts';

const WATCH_MILLIS = 2_000;
const CLEAR = '\u001b[2J\u001b[H';

interface ListFlags {
  readonly target?: string;
  readonly state?: string;
  readonly endedBy?: string;
  readonly overdue?: boolean;
  readonly limit?: string;
  readonly cursor?: string;
  readonly watch?: boolean;
  readonly json?: boolean;
}

export function addRevocationCommands(program: Command): void {
  const revocations = program
    .command('revocations')
    .enablePositionalOptions()
    .description('The queue of revocations: what is due, waiting, running, overdue or written off.')
    .option('--target <target>', 'of this target')
    .option('--state <state>', 'scheduled, due, waiting, running, contained, clean or written_off')
    .option('--ended-by <why>', 'why the grant ended')
    .option('--overdue', 'only what was not contained in time')
    .option('--limit <items>', 'at most so many')
    .option('--cursor <cursor>', 'go on where a page ended')
    .option('--watch', 'again and again, until Ctrl-C')
    .option('--json', 'as JSON')
    .action(async (flags: ListFlags) => {
      if (flags.watch !== true) return show(await read(flags), flags);
      await watch(flags);
    });
  revocations
    .command('show <id>')
    .description('One revocation, and what was done about it.')
    .option('--json', 'as JSON')
    .action(async (id: string, { json }: { json?: boolean }) =>
      tellStory(await callAsOperator('GET', pathOf(id), storyBody), json),
    );
  revocations
    .command('retry <id>')
    .description('Try a revocation now instead of at its next try.')
    .option('--json', 'as JSON')
    .action(async (id: string, { json }: { json?: boolean }) =>
      tellStory(await callAsOperator('POST', `${pathOf(id)}/retry`, storyBody), json),
    );
  revocations
    .command('write-off <id>')
    .description('Give a revocation up for good. Nobody says that its credential is gone.')
    .requiredOption('--reason <text>', 'why, for the evidence')
    .option('--json', 'as JSON')
    .action(async (id: string, { reason, json }: { reason: string; json?: boolean }) => {
      const answer = z.union([awaitingBody, storyBody]);
      const written = await callAsOperator('POST', `${pathOf(id)}/write-off`, answer, { reason });
      if (!('status' in written)) return tellStory(written, json);
      if (json === true) return say(JSON.stringify(written, null, 2));
      tellAwaiting(written, ['mayfly', 'revocations', 'write-off', id, '--reason', reason]);
    });
}

function pathOf(id: string): string {
  return `/v1/revocations/${encodeURIComponent(id)}`;
}

async function read({ target, state, endedBy, overdue, limit, cursor }: ListFlags): Promise<QueuePageBody> {
  const asked = { target, state, ended_by: endedBy, overdue: overdue === true ? 'true' : undefined, limit, cursor };
  const query = new URLSearchParams(
    Object.entries(asked).flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, value]])),
  );
  return await callAsOperator('GET', `/v1/revocations?${query.toString()}`, queuePageBody);
}

async function watch(flags: ListFlags): Promise<void> {
  const stop = new AbortController();
  void untilSignal().then(() => stop.abort());
  let begun = false;
  while (!stop.signal.aborted) {
    const page = await read(flags).catch((error: unknown) => {
      // A broker that is restarted comes back; one that never answered is another thing.
      const passing =
        error instanceof CliError || (error instanceof ProblemError && (error.status >= 500 || error.status === 429));
      if (!begun || !passing) throw error;
      note(explain(error));
    });
    begun = true;
    // As JSON one line a look, for another program.
    if (page !== undefined && flags.json === true) say(JSON.stringify(page));
    else if (page !== undefined) {
      say(process.stdout.isTTY ? `${CLEAR}${new Date().toISOString()}` : new Date().toISOString());
      show(page, flags);
    }
    await wait(WATCH_MILLIS, undefined, { signal: stop.signal }).catch(() => {});
  }
}

function show(page: QueuePageBody, { json }: ListFlags): void {
  if (json === true) return say(JSON.stringify(page, null, 2));
  if (page.counts.length === 0) say('The queue is empty.');
  else {
    const head = [
      'TARGET',
      'DUE',
      'WAITING',
      'RUNNING',
      'TO CLEAN',
      'WRITTEN OFF',
      'RESIDUAL',
      'OVERDUE',
      'OLDEST',
      '',
    ];
    const rows = page.counts.map((count) => [
      count.target,
      ...[count.due, count.waiting, count.running, count.contained].map(String),
      ...[count.written_off, count.residual, count.overdue].map(String),
      count.overdue === 0 ? '-' : seconds(count.oldest_overdue_seconds),
      count.pause === undefined ? '' : count.pause.deadlines === 'held' ? 'PAUSED, deadlines too' : 'PAUSED',
    ]);
    const [first = '', ...lines] = table([head, ...rows]).split('\n');
    say(styled('bold', first));
    lines.forEach((line, index) => say((page.counts[index]?.overdue ?? 0) > 0 ? styled('red', line) : line));
    for (const { target, pause } of page.counts) if (pause !== undefined) say(pauseLine(target, pause));
  }
  if (page.items.length === 0) return;
  const head = ['REVOCATION', 'TARGET', 'STATE', 'ENDED BY', 'DUE', 'ATTEMPTS', 'LAST ERROR', 'NEXT TRY', 'HELD BY'];
  const rows = page.items.map((item) => [
    item.id,
    item.target,
    stateOf(item),
    item.ended_by ?? '-',
    item.due_at,
    String(item.attempts),
    item.last_error ?? '-',
    item.next_try_at ?? '-',
    item.held_by?.worker ?? '-',
  ]);
  say();
  say(table([head, ...rows]));
  if (page.next_cursor !== null) say(`\nThere is more: --cursor ${page.next_cursor}`);
}

function tellStory(story: ReturnType<typeof storyBody.parse>, json: boolean | undefined): void {
  if (json === true) return say(JSON.stringify(story, null, 2));
  const { revocation, events, pause } = story;
  const { id, state, target, ended_by: endedBy, attempts, last_error: lastError, written_off: writtenOff } = revocation;
  const error = lastError === undefined ? '' : `, last error: ${lastError}`;
  say(`${styled('bold', id)} on ${target}: ${state} (${endedBy ?? 'its grant lives'}), ${attempts} attempts${error}`);
  say(`due ${revocation.due_at}, deadline ${revocation.deadline}, next try ${revocation.next_try_at ?? '-'}`);
  if (revocation.native_expiry_at !== undefined)
    say(`Its target can only let it expire: it waits for its native expiry at ${revocation.native_expiry_at}.`);
  if (revocation.residual !== undefined) say(styled('yellow', `It ended, and this is left: ${revocation.residual}.`));
  if (revocation.held_by !== undefined) say(`held by ${revocation.held_by.worker} until ${revocation.held_by.until}`);
  if (writtenOff !== undefined) {
    say(styled('red', `WRITTEN OFF ${writtenOff.at} by ${writtenOff.by}: ${writtenOff.reason}`));
    say('Nobody says that the credential is gone. The grant stays revoking.');
  }
  if (pause !== undefined) say(pauseLine(target, pause));
  if (events.length > 0) say();
  for (const { ts, type, payload } of events) {
    const said = [payload['error_class'], payload['says'], payload['reason'], payload['by']];
    const line = `${ts}  ${type}  ${said.filter((part) => typeof part === 'string').join('  ')}`;
    // A target's words may hold an agent's: none of them moves the cursor.
    say(line.replaceAll(/[\p{Cc}\p{Cf}]/gu, '').trimEnd());
  }
}

function stateOf({
  state,
  overdue_since: overdue,
  contained_at: contained,
  native_expiry_at: expiry,
}: QueuedBody): string {
  if (overdue !== undefined && contained === undefined) return `${state} (overdue)`;
  return expiry === undefined ? state : `${state} (expires ${expiry})`;
}

function pauseLine(target: string, { since, by, reason, deadlines }: PauseBody): string {
  return styled('yellow', `${target} is PAUSED since ${since} by ${by}: ${reason} (deadlines: ${deadlines})`);
}

function seconds(count: number): string {
  return count < 120 ? `${Math.round(count)} s` : `${Math.round(count / 60)} min`;
}
