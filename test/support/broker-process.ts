import { execFile, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { StepName } from '../../src/domain/step.ts';
import { compiled } from './compiled.ts';
import { migrationsFolder } from './store.ts';

/** What becomes of a broker in a process of its own when it comes to a step the next time. */
export interface Fall {
  readonly step: StepName;
  /** SIGCONT: it only says that it was there. */
  readonly signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT';
}

export interface ProcessSettings {
  readonly env: Readonly<Record<string, string>>;
  readonly databaseUrl: string;
  /** From its start on. */
  readonly falls?: readonly Fall[];
  /** How far its clock is ahead of the right one. Only in a process of its own. */
  readonly clockOffMillis?: number;
}

/** A replica, here or in a process of its own. */
export interface RunningBroker {
  readonly url: string;
  readonly installation: string;
  apply(files: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
  /** Only in a process of its own. */
  signal(signal: NodeJS.Signals): Promise<void>;
  /** From now on, instead of those before. Only in a process of its own. */
  fallAt(falls: readonly Fall[]): Promise<void>;
  /** Resolves when it has come to that step, and fallen. Only in a process of its own. */
  reached(step: StepName): Promise<void>;
}

/**
 * Starts `broker-main.ts` in a process of its own. It ends with its parent.
 * @param logTo takes all that it writes to standard error, its log among it.
 */
export async function startBrokerProcess(
  settings: ProcessSettings,
  logTo: NodeJS.WritableStream = process.stderr,
): Promise<RunningBroker> {
  const { PATH = '', TMPDIR, HOME = '/' } = process.env;
  // Node looks at it once, when it starts.
  const { NODE_EXTRA_CA_CERTS = '' } = settings.env;
  const child = spawn(process.execPath, [compiled('test/support/broker-main.ts'), migrationsFolder], {
    env: {
      ...{ PATH, HOME, NODE_ENV: 'test', NODE_EXTRA_CA_CERTS, ...(TMPDIR === undefined ? {} : { TMPDIR }) },
      // Of what the AWS SDK will need one day.
      AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true',
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stderr.on('data', (text: Buffer) => logTo.write(text));
  const fallen = new Set<string>();
  const waiting: ((answer: Record<string, string>) => void)[] = [];
  const falling = new EventEmitter();
  createInterface({ input: child.stdout }).on('line', (line) => {
    const answer = JSON.parse(line) as Record<string, string>;
    const { reached, signal } = answer;
    if (reached === undefined) return waiting.shift()?.(answer);
    const told = () => {
      fallen.add(reached);
      falling.emit(reached);
    };
    if (signal === 'SIGSTOP') void stopped(child.pid).then(told);
    else told();
  });
  child.stdin.on('error', () => {});
  // Not `exit`: what it said last is still to be read then.
  const ended = once(child, 'close');
  const died = ended.then((): never => {
    throw new Error(`the broker process ended${fallen.size === 0 ? '' : ` at ${[...fallen].join(', ')}`}`);
  });
  died.catch(() => {});
  const ask = async (order: object): Promise<Record<string, string>> => {
    const answer = new Promise<Record<string, string>>((resolve) => {
      waiting.push(resolve);
    });
    child.stdin.write(`${JSON.stringify(order)}\n`);
    return await Promise.race([answer, died]);
  };
  const over = () => child.exitCode !== null || child.signalCode !== null;
  const { url = '', installation = '' } = await ask(settings);
  return {
    url,
    installation,
    apply: async (files) => {
      const { error } = await ask({ files });
      if (error !== undefined) throw new Error(error);
    },
    stop: async () => {
      if (over()) return;
      child.kill('SIGTERM');
      child.kill('SIGCONT');
      await ended;
    },
    signal: async (signal) => {
      if (over()) return;
      child.kill(signal);
      if (signal === 'SIGKILL') await ended;
    },
    fallAt: async (falls) => {
      fallen.clear();
      await ask({ falls });
    },
    reached: async (step) => {
      if (!fallen.has(step)) await once(falling, step);
    },
  };
}

/** Its word comes before the stop itself: a SIGCONT in between would be lost, and it would sleep for ever. */
async function stopped(pid: number | undefined): Promise<void> {
  const state = async () => (await promisify(execFile)('ps', ['-o', 'stat=', '-p', String(pid)])).stdout.trim();
  while (!(await state().catch(() => 'T')).startsWith('T')) await pause(5);
}
