import { type ChildProcess, spawn, type StdioOptions } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { compiled } from './compiled.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const tsx = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;

/** Of node, before the command's own arguments: `mayfly`. */
export const mayflyArguments = [compiled('src/cli/main.ts')];
/** Of node, before the name of a program in TypeScript that is none of ours. */
export const tsxArguments = ['--import', tsx];

const DRAIN_MILLIS = 500;

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliProcess {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly ended: Promise<Ended>;
  /** What it has said so far. */
  said(): { readonly stdout: string; readonly stderr: string };
  /** Once this stands in its output, standard error included. Rejects when it ends without. */
  says(what: RegExp): Promise<RegExpExecArray>;
  endInput(): void;
}

export interface CliOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Another program that runs node, e.g. a shell; `mayflyArguments` must stand in its arguments then. */
  readonly program?: string;
  /** Holds its standard input open until `endInput`, instead of giving it none. */
  readonly holdInput?: boolean;
}

/** The environment of a command: nothing of ours, of MAYFLY_* and of NODE_* but what a test gives. */
function cleanEnvironment(more: CliOptions['env'] = {}): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => /^(PATH|HOME|TMPDIR|LANG|TZ)$/.test(name));
  return { ...Object.fromEntries(kept), ...more };
}

/** Starts `mayfly` in a process of its own. The caller ends what does not end by itself. */
export function startCli(args: readonly string[], options: CliOptions = {}): CliProcess {
  const stdio: StdioOptions = [options.holdInput === true ? 'pipe' : 'ignore', 'pipe', 'pipe'];
  const own = options.program === undefined ? mayflyArguments : [];
  const child = spawn(options.program ?? process.execPath, [...own, ...args], {
    env: cleanEnvironment(options.env),
    cwd: options.cwd ?? root,
    stdio,
  });
  let stdout = '';
  let stderr = '';
  const listeners = new Set<() => void>();
  const heard = () => {
    for (const listener of listeners) listener();
  };
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    heard();
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    heard();
  });
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      const settle = () => resolve({ code, signal, stdout, stderr });
      // What it has started may outlive it and hold its output open: then nothing more of its own comes.
      const timer = setTimeout(settle, DRAIN_MILLIS);
      child.once('close', () => {
        clearTimeout(timer);
        settle();
      });
    });
  });
  return {
    child,
    pid: child.pid ?? 0,
    ended,
    said: () => ({ stdout, stderr }),
    endInput: () => void child.stdin?.end(),
    says: (what) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const found = what.exec(`${stdout}\n${stderr}`);
          if (found === null) return;
          listeners.delete(look);
          resolve(found);
        };
        listeners.add(look);
        look();
        void ended.then(() => reject(new Error(`It ended without saying ${String(what)}:\n${stdout}\n${stderr}`)));
      }),
  };
}
