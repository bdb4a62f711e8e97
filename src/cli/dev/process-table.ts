import { execFile } from 'node:child_process';
import { readdir, readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface ProcessEntry {
  readonly pid: number;
  readonly uid: number;
  /** Arguments joined by spaces; what a program may have made of its own title. */
  readonly command: string;
}

/**
 * When a process was born, in a form that a later process with the same pid does not share. Undefined when no such
 * process runs (a zombie does not run).
 */
export async function processBirth(pid: number): Promise<string | undefined> {
  return process.platform === 'linux' ? birthFromProc(pid) : birthFromPs(pid);
}

/** All processes that this user may see. From /proc where there is one: slim container images have no `ps`. */
export async function listProcesses(): Promise<ProcessEntry[]> {
  if (process.platform !== 'linux') return listFromPs();
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const entries = await Promise.all(pids.map(readEntry));
  return entries.filter((entry) => entry !== undefined);
}

async function readEntry(pid: string): Promise<ProcessEntry | undefined> {
  try {
    const [owner, line] = await Promise.all([stat(`/proc/${pid}`), readFile(`/proc/${pid}/cmdline`, 'utf8')]);
    return { pid: Number(pid), uid: owner.uid, command: line.replaceAll('\0', ' ').trim() };
  } catch {
    // Ended between the listing and the look.
    return undefined;
  }
}

async function birthFromProc(pid: number): Promise<string | undefined> {
  let line: string;
  try {
    line = await readFile(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  // The second field is the program's name in parentheses and may hold spaces: count from its end (proc(5)).
  const [state, ...rest] = line.slice(line.lastIndexOf(')') + 2).split(' ');
  if (state === 'Z' || state === 'X') return undefined;
  const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
  return `${boot.trim()}/${rest[18]}`;
}

async function birthFromPs(pid: number): Promise<string | undefined> {
  try {
    const { stdout } = await run('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], { env: { LC_ALL: 'C' } });
    const [, state = '', birth = ''] = /^\s*(\S+)\s+(.*\S)\s*$/.exec(stdout) ?? [];
    return birth === '' || state.startsWith('Z') ? undefined : birth;
  } catch {
    return undefined;
  }
}

async function listFromPs(): Promise<ProcessEntry[]> {
  const { stdout } = await run('ps', ['-axww', '-o', 'pid=,uid=,command='], { maxBuffer: 64 * 1024 * 1024 });
  return stdout.split('\n').flatMap((line) => {
    const [, pid, uid, command] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? [];
    return pid === undefined || uid === undefined
      ? []
      : [{ pid: Number(pid), uid: Number(uid), command: command ?? '' }];
  });
}
