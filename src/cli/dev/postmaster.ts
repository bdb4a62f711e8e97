import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { DevError, systemCode } from './dev-error.ts';
import type { PostgresHome } from './postgres-home.ts';
import { listProcesses } from './process-table.ts';

const LOOK_EVERY_MS = 20;

export interface StopBounds {
  /** Fast shutdown: sessions ended, checkpoint written. Milliseconds. */
  readonly fast: number;
  /** Immediate shutdown, then SIGKILL: each as long. The next start recovers. */
  readonly forced: number;
}

/** The arguments that every program of this server starts with, by which its processes are known. */
export function serverArguments(home: PostgresHome): string[] {
  return ['-D', home.dataDir, '-c', `cluster_name=${home.clusterName}`];
}

/**
 * Ends every process of this server: a child of ours, or one left by a broker that was killed. Known by data directory
 * and cluster name in the arguments (children: in the title), never by a pid file alone: a pid may be reused.
 * @returns how many there were.
 * @throws DevError `server_failed` when some outlive SIGKILL.
 */
export async function stopServer(
  home: PostgresHome,
  bounds: StopBounds = { fast: 10_000, forced: 5_000 },
): Promise<number> {
  const found = await serverProcesses(home);
  const steps = [
    // Children of a dead postmaster end by themselves; SIGINT would only cancel their statement.
    { signal: 'SIGINT', whom: (one: ServerProcess) => one.kind === 'postmaster', wait: bounds.fast },
    { signal: 'SIGQUIT', whom: () => true, wait: bounds.forced },
    { signal: 'SIGKILL', whom: () => true, wait: bounds.forced },
  ] as const;
  let left = found;
  for (const { signal, whom, wait } of steps) {
    for (const one of left.filter(whom)) send(one.pid, signal);
    const until = Date.now() + wait;
    while (left.length > 0 && Date.now() < until) {
      await pause(LOOK_EVERY_MS);
      left = await serverProcesses(home);
    }
    if (left.length === 0) return found.length;
  }
  const pids = left.map((one) => one.pid).join(', ');
  throw new DevError(
    'server_failed',
    `PostgreSQL of ${home.dataDir} does not end (pids ${pids}). End it, then start again.`,
  );
}

/**
 * Removes a `postmaster.pid` whose pid runs another program by now: PostgreSQL would take that for a live server and
 * refuse. One with a dead pid stays: PostgreSQL itself checks it against its shared memory. Only after `stopServer`.
 */
export async function removeMisleadingPidFile(home: PostgresHome): Promise<void> {
  const [pid] = await readPidFile(home);
  if (pid !== undefined && isAlive(Number(pid))) await rm(join(home.dataDir, 'postmaster.pid'), { force: true });
}

/** Whether the postmaster with this pid says that it takes connections (eighth line of its pid file). */
export async function isReady(home: PostgresHome, pid: number): Promise<boolean> {
  const lines = await readPidFile(home);
  return Number(lines[0]) === pid && lines[7]?.trim() === 'ready';
}

/**
 * Ends the initdb or single-user run that a killed broker left at work in a folder of drafts. Removing the folder alone
 * is not enough: initdb makes missing parent folders again, and goes on.
 */
export async function endDraftPrograms(home: PostgresHome, draft: string): Promise<void> {
  const uid = serverUid(home);
  const atWork = async () =>
    (await listProcesses()).filter((one) => one.uid === uid && `${one.command} `.includes(` -D ${draft} `));
  for (let left = await atWork(); left.length > 0; left = await atWork()) {
    for (const { pid } of left) send(pid, 'SIGKILL');
    await pause(LOOK_EVERY_MS);
  }
}

interface ServerProcess {
  readonly pid: number;
  readonly kind: 'postmaster' | 'child';
}

async function serverProcesses(home: PostgresHome): Promise<ServerProcess[]> {
  const uid = serverUid(home);
  const own = ` ${serverArguments(home).join(' ')}`;
  const title = `postgres: ${home.clusterName}: `;
  return (await listProcesses()).flatMap(({ pid, uid: owner, command }): ServerProcess[] => {
    if (owner !== uid) return [];
    if (command.startsWith(title)) return [{ pid, kind: 'child' }];
    return `${command} `.includes(`${own} `) ? [{ pid, kind: 'postmaster' }] : [];
  });
}

function serverUid(home: PostgresHome): number | undefined {
  return home.account?.uid ?? process.getuid?.();
}

async function readPidFile(home: PostgresHome): Promise<string[]> {
  try {
    return (await readFile(join(home.dataDir, 'postmaster.pid'), 'utf8')).split('\n');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (systemCode(error) !== 'ESRCH') throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return systemCode(error) === 'EPERM';
  }
}
