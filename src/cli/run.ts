import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { type Credential, MayflyClient, ProblemError } from '../client/index.ts';
import { askDevIssuer, brokerUrl } from './dev-state.ts';
import { CliError, explain } from './fail.ts';
import { note } from './output.ts';
import { addSignOptions, type SignOptions, signTaskRequest, wholeSeconds } from './task.ts';

interface RunOptions extends Omit<SignOptions, 'entitlement' | 'purpose'> {
  readonly purpose?: string;
  readonly grant: string;
  readonly grantTtl?: string;
  readonly taskRequest?: string;
  readonly env?: boolean;
}

/** Renewed when this much of its life is over. */
const RENEW_AFTER = 0.6;
const WAIT_SECONDS = 30;

export function addRunCommand(program: Command): void {
  addSignOptions(program.command('run').description('Run a command with a credential that ends when the command does.'))
    .usage('--purpose <purpose> --grant <entitlement> [options] -- <command> [args...]')
    .option('--purpose <purpose>', 'dev mode: sign the task request itself, for this purpose')
    .option('--task-request <file-or-url>', 'the signed task request; the workload token comes from MAYFLY_TOKEN_FILE')
    .requiredOption('--grant <entitlement>', 'the entitlement to ask for')
    .option('--grant-ttl <seconds>', 'how long the credential should live; it is renewed while the command runs')
    .option('--env', 'hand it over in PGPASSWORD and DATABASE_URL too')
    .argument('<command...>', 'what to run')
    .passThroughOptions()
    .action(async (command: string[], options: RunOptions) => {
      await runWithCredential(command, options);
    });
}

async function runWithCredential(command: readonly string[], options: RunOptions): Promise<void> {
  const ttl = options.grantTtl === undefined ? undefined : wholeSeconds(options.grantTtl, '--grant-ttl');
  const { request, token } = await proofs(options);
  const client = new MayflyClient({ url: brokerUrl(), token });
  const { task } = await client.openTask(request);
  let outcome: Outcome = { code: 1 };
  let folder: string | undefined;
  try {
    const { grant, credential } = await client.issue(task.id, {
      entitlement: options.grant,
      ...(ttl === undefined ? {} : { ttl_seconds: ttl }),
    });
    folder = mkdtempSync(join(tmpdir(), 'mayfly-run-'));
    const child = start(command, environmentFor(credential, folder, options.env === true));
    const renewal = keepAlive(client, grant.id, grant.deadline);
    outcome = await child;
    renewal.stop();
  } finally {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    await end(client, task.id, outcome);
  }
  leave(outcome);
}

/** The signed request and the agent's own token. Only dev mode signs for itself: an agent never holds an issuer's key. */
async function proofs(options: RunOptions): Promise<{ request: string; token: () => string | Promise<string> }> {
  const tokenFile = process.env['MAYFLY_TOKEN_FILE'];
  const token = tokenFile === undefined ? devToken(options.workload) : () => readFileSync(tokenFile, 'utf8');
  if (options.taskRequest !== undefined) {
    if (tokenFile === undefined)
      throw new CliError('--task-request needs the workload’s own token: set MAYFLY_TOKEN_FILE.', 2);
    return { request: await readRequest(options.taskRequest), token };
  }
  if (options.purpose === undefined) throw new CliError('Give --task-request FILE|URL, or in dev mode --purpose.', 2);
  return {
    request: await signTaskRequest({ ...options, purpose: options.purpose, entitlement: [options.grant] }),
    token,
  };
}

function devToken(workload: string): () => Promise<string> {
  return () => askDevIssuer({ kind: 'workload', subject: workload, audience: brokerUrl() });
}

async function readRequest(from: string): Promise<string> {
  if (!/^https?:\/\//.test(from)) return readFileSync(from, 'utf8').trim();
  const response = await fetch(from, { redirect: 'error' });
  if (!response.ok) throw new CliError(`The task request at ${from} could not be read: HTTP ${response.status}.`);
  return (await response.text()).trim();
}

/** Our own settings and tokens are not the child's business; the credential is. */
function environmentFor(credential: Credential, folder: string, inEnvironment: boolean): NodeJS.ProcessEnv {
  const clean = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('MAYFLY_') && !/^PG[A-Z]+$/.test(name)),
  );
  const text = (name: string) => {
    const value = credential[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
  if (text('username') === '' || text('database') === '')
    throw new CliError('`mayfly run` hands over Postgres credentials; this one is of another kind.');
  const passwordFile = join(folder, 'pgpass');
  const escaped = [text('host'), text('port'), text('database'), text('username'), text('password')].map((part) =>
    part.replace(/[\\:]/g, '\\$&'),
  );
  writeFileSync(passwordFile, `${escaped.join(':')}\n`, { mode: 0o600 });
  const environment: NodeJS.ProcessEnv = {
    ...clean,
    PGHOST: text('host'),
    PGPORT: text('port'),
    PGDATABASE: text('database'),
    PGUSER: text('username'),
    PGSSLMODE: text('sslmode'),
    PGPASSFILE: passwordFile,
  };
  if (text('ca_pem') !== '') {
    environment['PGSSLROOTCERT'] = join(folder, 'ca.pem');
    writeFileSync(join(folder, 'ca.pem'), text('ca_pem'), { mode: 0o600 });
  }
  return inEnvironment ? { ...environment, PGPASSWORD: text('password'), DATABASE_URL: text('url') } : environment;
}

type Outcome = { readonly code: number } | { readonly signal: NodeJS.Signals };

const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** Only the three standard streams are passed on. */
function start(command: readonly string[], env: NodeJS.ProcessEnv): Promise<Outcome> {
  const [file = '', ...args] = command;
  return new Promise((resolve, reject) => {
    const child: ChildProcess = spawn(file, args, { env, stdio: 'inherit' });
    const forward = (signal: NodeJS.Signals) => {
      // A terminal's Ctrl-C reaches the child by itself, since it is in the same group.
      if (!(signal === 'SIGINT' && process.stdin.isTTY)) child.kill(signal);
    };
    for (const signal of FORWARDED) process.on(signal, forward);
    const settle = () => {
      for (const signal of FORWARDED) process.off(signal, forward);
    };
    child.on('error', (error) => {
      settle();
      const missing = 'code' in error && error.code === 'ENOENT';
      reject(
        new CliError(
          missing ? `${file}: no such command.` : `${file} could not be started: ${error.message}`,
          missing ? 127 : 126,
        ),
      );
    });
    child.on('exit', (code, signal) => {
      settle();
      resolve(signal === null ? { code: code ?? 1 } : { signal });
    });
  });
}

/** Renews while the child lives and policy allows. When it may not go on, the child keeps what it has until its deadline. */
function keepAlive(client: MayflyClient, grantId: string, deadline: string): { stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  let stopped = false;
  const life = Math.max(1, Math.round((Date.parse(deadline) - Date.now()) / 1000));
  const plan = (until: string) => {
    timer = setTimeout(renew, Math.max(1_000, (Date.parse(until) - Date.now()) * RENEW_AFTER));
  };
  const renew = () => {
    client.renew(grantId, life).then(
      ({ grant }) => {
        // At the end of the task a renewal brings nothing more: then the deadline stands.
        if (!stopped && grant.deadline > deadline) plan(grant.deadline);
        deadline = grant.deadline;
      },
      (error: unknown) => {
        if (stopped) return;
        const final = error instanceof ProblemError && error.status < 500;
        note(
          `mayfly: the credential could not be renewed${final ? ` and ends at ${deadline}` : '; trying again'}. ${explain(error)}`,
        );
        if (!final && Date.parse(deadline) > Date.now()) timer = setTimeout(renew, 2_000);
      },
    );
  };
  plan(deadline);
  return {
    stop: () => {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** The task is completed whatever became of the child; an agent that never started cancels it. */
async function end(client: MayflyClient, taskId: string, outcome: Outcome): Promise<void> {
  const good = 'code' in outcome && outcome.code === 0;
  try {
    const { revocations } = await (good
      ? client.complete(taskId, { wait: WAIT_SECONDS })
      : client.cancel(taskId, { wait: WAIT_SECONDS }));
    for (const { target, state } of revocations) {
      if (state !== 'contained' && state !== 'clean')
        note(`mayfly: the credential on ${target ?? 'its target'} is still being taken back (${state}).`);
    }
  } catch (error) {
    note(`mayfly: the task could not be ended; its credentials end at their deadlines. ${explain(error)}`);
  }
}

/** Exits as the child did: with its status, or by its signal. */
function leave(outcome: Outcome): void {
  if ('code' in outcome) {
    process.exitCode = outcome.code;
    return;
  }
  process.exitCode = 128 + (constants.signals[outcome.signal] ?? 0);
  process.kill(process.pid, outcome.signal);
}
