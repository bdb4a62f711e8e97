import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';

export interface ProcessSettings {
  readonly env: Readonly<Record<string, string>>;
  readonly databaseUrl: string;
}

/** A replica, here or in a process of its own. */
export interface RunningBroker {
  readonly url: string;
  readonly installation: string;
  apply(files: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
  /** Only in a process of its own. */
  signal(signal: NodeJS.Signals): Promise<void>;
}

/**
 * Starts `broker-main.ts` in a process of its own. It ends with its parent.
 * @param logTo takes all that it writes to standard error, its log among it.
 */
export async function startBrokerProcess(
  settings: ProcessSettings,
  logTo: NodeJS.WritableStream = process.stderr,
): Promise<RunningBroker> {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  const main = fileURLToPath(new URL('./broker-main.ts', import.meta.url));
  const { PATH = '', TMPDIR, HOME = '/' } = process.env;
  const child = spawn(process.execPath, ['--import', tsx, main], {
    env: { PATH, HOME, ...(TMPDIR === undefined ? {} : { TMPDIR }), NODE_ENV: 'test' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  child.stderr.pipe(logTo, { end: false });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (order: object): Promise<Record<string, string>> => {
    child.stdin.write(`${JSON.stringify(order)}\n`);
    const line = await answers.next();
    if (line.done === true) throw new Error('the broker process ended');
    return JSON.parse(line.value) as Record<string, string>;
  };
  const ended = once(child, 'exit');
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
  };
}
