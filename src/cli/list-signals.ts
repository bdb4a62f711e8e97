import { renderLeft } from './foreseen.ts';
import type { Command } from 'commander';
import { signalsPageBody } from '../http/signal-bodies.ts';
import { callAsOperator } from './operator.ts';
import { say, styled, table } from './output.ts';

interface ListFlags {
  readonly standing?: boolean;
  readonly limit?: string;
  readonly cursor?: string;
  readonly json?: boolean;
}

/** `mayfly signals`. */
export function addSignalsCommand(program: Command): void {
  program
    .command('signals')
    .description('What sources say of workloads, users and systems, the latest first; and whether each is heard.')
    .option('--standing', 'only what counts now')
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
      const page = await callAsOperator('GET', `/v1/signals?${query.toString()}`, signalsPageBody);
      if (json === true) return say(JSON.stringify(page, null, 2));
      for (const line of renderLeft(page.left_suspended)) say(line);
      if (page.sources.length === 0) return say('The catalog names no source of signals.');
      const sources = page.sources.map(({ name, required, max_age_seconds: bound, heard_at: heard, stale }) => [
        ...[name, heard ?? 'never', `${bound} s`, required ? 'yes' : 'no', stale ? styled('red', 'STALE') : 'no'],
      ]);
      say(table([['SOURCE', 'HEARD', 'BOUND', 'REQUIRED', 'STALE'], ...sources]));
      if (page.items.length === 0) return say('\nNone of them has said anything.');
      const head = ['OCCURRED', 'SOURCE', 'KIND', 'SUBJECT', 'VALUE', 'STANDS', 'REASON'];
      const rows = page.items.map((item) => [
        ...[item.occurred_at, item.source, item.kind, [item.subject, item.name].filter(Boolean).join(' ')],
        ...[item.value, item.standing ? 'STANDS' : '-', item.reason ?? '-'],
      ]);
      say(`\n${table([head, ...rows])}`);
      if (page.next_cursor !== null) say(`\nThere is more: --cursor ${page.next_cursor}`);
    });
}
