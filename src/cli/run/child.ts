import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { CliError } from '../fail.ts';

/** How a command ended. */
export type Outcome = { readonly code: number } | { readonly signal: NodeJS.Signals };

export interface RunningChild {
  readonly ended: Promise<Outcome>;
  kill(signal: NodeJS.Signals): void;
}

/**
 * Starts a command with our own three standard streams and no other descriptor.
 * @throws CliError 127 when there is no such command, 126 when it can not be started.
 */
export async function startChild(command: readonly string[], env: NodeJS.ProcessEnv): Promise<RunningChild> {
  closeInherited();
  const [file = '', ...args] = command;
  let child: ChildProcess;
  try {
    child = spawn(file, args, { env, stdio: 'inherit' });
    await new Promise((resolve, reject) => child.once('spawn', resolve).once('error', reject));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ENOENT') throw new CliError(`${file}: no such command.`, 127);
    const why = code === 'EACCES' ? 'it is not executable.' : error instanceof Error ? error.message : String(error);
    throw new CliError(`${file} could not be started: ${why}`, 126);
  }
  const ended = new Promise<Outcome>((resolve) => {
    child.once('exit', (code, signal) => resolve(signal === null ? { code: code ?? 1 } : { signal }));
  });
  // A signal that can not be delivered is one whose addressee has just ended.
  child.on('error', () => {});
  return { ended, kill: (signal) => void child.kill(signal) };
}

/**
 * Closes what our own parent left open beyond the three standard streams: it may be a token file, or a socket. Node marks only
 * those below 16 as not to be passed on, and no others have a gap before them. Its own are all marked already. On macOS the system
 * passes none on.
 */
function closeInherited(): void {
  if (process.platform !== 'linux') return;
  for (const name of readdirSync('/proc/self/fd')) {
    const fd = Number(name);
    if (fd > 2 && isPassedOn(fd)) closeSync(fd);
  }
}

function isPassedOn(fd: number): boolean {
  try {
    const flags = /^flags:\s*([0-7]+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1];
    // O_CLOEXEC, which `constants` of node:fs does not tell.
    return flags !== undefined && (Number.parseInt(flags, 8) & 0o2000000) === 0;
  } catch {
    // The listing's own descriptor is closed by now.
    return false;
  }
}

/** Those whose default is to leave the memory of the process on disk. */
const DUMPING: readonly NodeJS.Signals[] = [
  'SIGQUIT',
  'SIGILL',
  'SIGTRAP',
  'SIGABRT',
  'SIGBUS',
  'SIGFPE',
  'SIGSEGV',
  'SIGXCPU',
  'SIGXFSZ',
  'SIGSYS',
];

/**
 * Ends this process as the child did: with its status, or by its signal. Not by a signal that would dump our memory, in which
 * tokens stand: then with the status that a shell gives for it.
 */
export function leaveAs(outcome: Outcome): void {
  if ('code' in outcome) {
    process.exitCode = outcome.code;
    return;
  }
  process.exitCode = statusOf(outcome.signal);
  if (!DUMPING.includes(outcome.signal)) process.kill(process.pid, outcome.signal);
}

/** As a shell tells of a command that a signal ended. */
export function statusOf(signal: NodeJS.Signals): number {
  return 128 + (constants.signals[signal] ?? 0);
}
