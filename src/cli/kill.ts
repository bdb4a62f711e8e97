import type { Command } from 'commander';
import { z } from 'zod';
import { awaitingBody } from '../http/awaiting.ts';
import { confirmedBody, killsPageBody, type KillView, killView } from '../http/kill-bodies.ts';
import { tellAwaiting } from './awaiting.ts';
import { CliError } from './fail.ts';
import { callAsOperator } from './operator.ts';
import { note, say, styled, table } from './output.ts';

interface ListFlags {
  readonly standing?: boolean;
  readonly limit?: string;
  readonly cursor?: string;
  readonly json?: boolean;
}

interface ReasonFlags {
  readonly reason: string;
  readonly json?: boolean;
}

/** `mayfly kill`. */
export function addKillCommands(program: Command): void {
  const kill = program
    .command('kill')
    .enablePositionalOptions()
    .description('Stop an agent, a task, an issuer, an entitlement, a target or all, until it is lifted.')
    .argument('<scope>', 'agent, task, issuer, entitlement, target or all')
    .argument('[id]', 'what of it: <source>:<subject>, task_…, an issuer’s URL or name, an entitlement, a target')
    // Demanded below: a required option would be one of `list`, too.
    .option('--reason <text>', 'why, for the evidence')
    .option('--json', 'as JSON')
    .action(async (scope: string, id: string | undefined, { reason, json }: Partial<ReasonFlags>) => {
      if (reason === undefined) throw new CliError('Say why: --reason <text>.');
      const body = { scope, ...(id === undefined ? {} : { id }), reason };
      tell(await callAsOperator('POST', '/v1/kill', killView, body), json);
    });
  kill
    .command('list')
    .description('The kills, the latest first.')
    .option('--standing', 'only those that stand')
    .option('--limit <items>', 'at most so many')
    .option('--cursor <cursor>', 'go on where a page ended')
    .option('--json', 'as JSON')
    .action(async ({ standing, limit, cursor, json }: ListFlags) => {
      const asked = { standing: standing === true ? 'true' : undefined, limit, cursor };
      const query = new URLSearchParams(
        Object.entries(asked).flatMap(([name, value]): [string, string][] =>
          value === undefined ? [] : [[name, value]],
        ),
      );
      const page = await callAsOperator('GET', `/v1/kill?${query.toString()}`, killsPageBody);
      if (json === true) return say(JSON.stringify(page, null, 2));
      if (page.items.length === 0) return say('There is none.');
      const head = ['KILL', 'SCOPE', 'SUBJECT', 'SINCE', 'BY', 'LIFTED', 'REASON'];
      const rows = page.items.map(({ id, scope, subject, since, by, lifted, reason }) => [
        ...[id, scope, subject ?? '-', since, by, lifted?.at ?? 'STANDS', reason],
      ]);
      say(table([head, ...rows]));
      if (page.next_cursor !== null) say(`\nThere is more: --cursor ${page.next_cursor}`);
    });
  kill
    .command('lift <id>')
    .description('Let it be asked for again. What was ended stays ended.')
    .requiredOption('--reason <text>', 'why, for the evidence')
    .option('--json', 'as JSON')
    .action(async (id: string, { reason, json }: ReasonFlags) => {
      const answer = z.union([awaitingBody, killView]);
      const lifted = await callAsOperator('DELETE', `/v1/kill/${encodeURIComponent(id)}`, answer, { reason });
      if (!('status' in lifted)) return tell(lifted, json);
      if (json === true) return say(JSON.stringify(lifted, null, 2));
      tellAwaiting(lifted, ['mayfly', 'kill', 'lift', id, '--reason', reason]);
    });
  kill
    .command('confirm')
    .description('After a failover of the store: say that the kills that stand are all that shall.')
    .requiredOption('--reason <text>', 'why, for the evidence')
    .action(async ({ reason }: ReasonFlags) => {
      await callAsOperator('POST', '/v1/kill/confirm', confirmedBody, { reason });
      say('Confirmed: on what is reconciled, credentials are issued again.');
    });
}

function tell(kill: KillView, json: boolean | undefined): void {
  if (json === true) return say(JSON.stringify(kill, null, 2));
  const { id, scope, subject, since, by, reason, ended, lifted } = kill;
  const what = subject === null ? scope : `${scope} ${subject}`;
  if (lifted !== undefined) return say(`${id}: ${what} is ${styled('green', 'not stopped')}. Lifted by ${lifted.by}.`);
  say(`${id}: ${what} is ${styled('red', 'STOPPED')} since ${since} by ${by}: ${reason}`);
  note(
    `It ended ${ended.tasks} tasks and ${ended.grants} grants, and hastened ${ended.hastened} revocations that were owed before. See mayfly revocations.`,
  );
}
