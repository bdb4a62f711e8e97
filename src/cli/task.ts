import type { Command } from 'commander';
import { devAgentKey } from './agent-key.ts';
import { askDevIssuer, brokerUrl, requireDevState } from './dev-state.ts';
import { CliError } from './fail.ts';
import { say } from './output.ts';

export interface SignOptions {
  readonly purpose: string;
  readonly entitlement: readonly string[];
  readonly phase?: string;
  readonly workload: string;
  readonly subject: string;
  readonly ttl: string;
  readonly maxTtl?: string;
  readonly param?: readonly string[];
  readonly id?: string;
  readonly maxDepth?: string;
}

export function addTaskCommands(program: Command): void {
  const task = program.command('task').description('Task requests and events.');
  addSignOptions(
    task
      .command('sign')
      .description(
        'Dev mode: sign a task request with the dev issuer’s key, for the key of `dev proof`, and print it.',
      ),
  )
    .requiredOption('--purpose <purpose>', 'what the task is for, as in purposes.yaml')
    .requiredOption('--entitlement <name...>', 'what it may ask for, e.g. ledger-db/read-invoices')
    .action(async (options: SignOptions) => {
      requireDevState();
      say(await signTaskRequest(options, (await devAgentKey()).thumbprint));
    });
  task
    .command('event')
    .description('Dev mode: sign an event of a task (complete, cancel, phase) with the dev issuer’s key, and print it.')
    .argument('<task>', 'the broker’s id of the task')
    .argument('<op>', 'complete, cancel or phase')
    .option('--phase <phase>', 'phase to move to')
    .option('--reason <text>', 'why, for the evidence')
    .action(async (id: string, op: string, options: { readonly phase?: string; readonly reason?: string }) => {
      requireDevState();
      say(await signTaskEvent(id, op, options));
    });
}

/** What the dev issuer says of a task, for `POST /v1/tasks/{id}/events`. @param op `complete`, `cancel` or `phase`. */
export async function signTaskEvent(
  id: string,
  op: string,
  options: { readonly phase?: string; readonly reason?: string },
): Promise<string> {
  return await askDevIssuer({ kind: 'task-event', audience: brokerUrl(), task_id: id, op, ...options });
}

/** Options that `task sign`, `run` and `credential-process` share. */
export function addSignOptions(command: Command): Command {
  return command
    .option('--phase <phase>', 'phase to begin in (default: the purpose’s first)')
    .option('--workload <subject>', 'the workload that may present it', 'agent-recon')
    .option('--subject <who>', 'on whose behalf', 'user:dev')
    .option('--ttl <seconds>', 'how long the task may live', '1800')
    .option('--max-ttl <seconds>', 'longest life of one grant')
    .option('--param <name=value...>', 'typed parameters of the entitlements')
    .option('--max-depth <levels>', 'levels of tasks that may hang below it')
    .option('--id <id>', 'the issuer’s own id of the task (default: a new one)');
}

/** @param keyThumbprint of the key that the task's agent will prove. */
export async function signTaskRequest(options: SignOptions, keyThumbprint: string): Promise<string> {
  return await askDevIssuer({
    kind: 'task-request',
    audience: brokerUrl(),
    workload_subject: options.workload,
    key_thumbprint: keyThumbprint,
    subject: options.subject,
    purpose: options.purpose,
    entitlements: options.entitlement,
    ttl_seconds: wholeSeconds(options.ttl, '--ttl'),
    ...(options.phase === undefined ? {} : { phase: options.phase }),
    ...(options.maxTtl === undefined ? {} : { max_ttl_seconds: wholeSeconds(options.maxTtl, '--max-ttl') }),
    ...(options.param === undefined ? {} : { params: Object.fromEntries(options.param.map(paramOf)) }),
    ...(options.id === undefined ? {} : { external_id: options.id }),
    ...(options.maxDepth === undefined ? {} : { max_depth: levels(options.maxDepth) }),
  });
}

/** @throws CliError unless it is a whole number of seconds from 1 to `most`. */
export function wholeSeconds(text: string, option: string, most = 86_400): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) < 1 || Number(text) > most)
    throw new CliError(`${option} takes whole seconds from 1 to ${most}, not ${JSON.stringify(text)}.`, 2);
  return Number(text);
}

function levels(text: string): number {
  if (!/^(\d|1[0-6])$/.test(text))
    throw new CliError(`--max-depth takes a whole number from 0 to 16, not ${JSON.stringify(text)}.`, 2);
  return Number(text);
}

function paramOf(text: string): [string, string | number | boolean] {
  const at = text.indexOf('=');
  if (at < 1) throw new CliError(`--param takes name=value, not ${JSON.stringify(text)}.`, 2);
  return [text.slice(0, at), typed(text.slice(at + 1))];
}

/** A whole number only where a number is written so: `007` and `1e3` are names of something. */
function typed(text: string): string | number | boolean {
  if (text === 'true' || text === 'false') return text === 'true';
  const number = Number(text);
  return Number.isSafeInteger(number) && String(number) === text ? number : text;
}
