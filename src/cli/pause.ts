import type { Command } from 'commander';
import { targetControlBody } from '../http/queue-bodies.ts';
import { callAsOperator } from './operator.ts';
import { note, say, styled } from './output.ts';

interface PauseFlags {
  readonly reason: string;
  readonly deadlinesToo?: boolean;
  readonly json?: boolean;
}

/** `mayfly target pause` and `resume`. */
export function addPauseCommands(target: Command): void {
  target
    .command('pause <target>')
    .description('Leave a target alone: nothing is issued there, and what ended early waits for its deadline.')
    .requiredOption('--reason <text>', 'why, for the evidence')
    .option('--deadlines-too', 'DANGER: hold what reaches its deadline too')
    .option('--json', 'as JSON')
    .action(async (name: string, { reason, deadlinesToo, json }: PauseFlags) => {
      const body = { reason, ...(deadlinesToo === true ? { deadlines: 'also' } : {}) };
      const path = `/v1/targets/${encodeURIComponent(name)}/pause`;
      tell(await callAsOperator('POST', path, targetControlBody, body), json);
    });
  target
    .command('resume <target>')
    .description('Go on with a target; what was held back is tried at once.')
    .option('--json', 'as JSON')
    .action(async (name: string, { json }: { json?: boolean }) =>
      tell(await callAsOperator('POST', `/v1/targets/${encodeURIComponent(name)}/resume`, targetControlBody), json),
    );
}

function tell(control: ReturnType<typeof targetControlBody.parse>, json: boolean | undefined): void {
  if (json === true) return say(JSON.stringify(control, null, 2));
  const { target, pause, says } = control;
  if (pause === null) return say(`${target} is ${styled('green', 'not paused')}. ${says}`);
  say(`${target} is ${styled('yellow', 'PAUSED')} since ${pause.since} by ${pause.by}: ${pause.reason}`);
  note(styled(pause.deadlines === 'held' ? 'red' : 'yellow', says));
}
