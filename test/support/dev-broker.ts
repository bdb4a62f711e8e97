import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { listProcesses } from '../../src/cli/dev/process-table.ts';
import { compiled } from './compiled.ts';

/** Runs module code in a process of its own, with pipes for input and output. */
export function spawnModule(code: string, uid?: number): ChildProcess {
  return spawn(process.execPath, ['--input-type=module', '-e', code], {
    ...(uid === undefined ? {} : { uid, gid: uid, cwd: '/' }),
    stdio: ['pipe', 'pipe', 'ignore'],
  });
}

/** For that code: where a module of ours is. */
export function compiledModule(source: string): string {
  return pathToFileURL(compiled(source)).href;
}

export async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error('no output');
  for await (const line of createInterface(child.stdout)) return line;
  throw new Error('it said nothing');
}

export async function endChild(child: ChildProcess, signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill(signal);
  await once(child, 'exit');
}

export interface DevBroker {
  readonly child: ChildProcess;
  /** Once its server takes connections. */
  readonly ready: Promise<{ readonly url: string; readonly dataDir: string; readonly fresh: boolean }>;
}

/** A process that runs an embedded server, stops it on SIGTERM and SIGINT, and crashes on any input. */
export function spawnBroker(options: { dir: string; port: number }, uid?: number): DevBroker {
  const module = compiledModule('src/cli/dev/embedded-postgres.ts');
  const child = spawnModule(
    `const { startEmbeddedPostgres } = await import(${JSON.stringify(module)});
    const server = await startEmbeddedPostgres(${JSON.stringify(options)});
    for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => server.stop().then(() => process.exit(0)));
    process.stdin.once('data', () => { throw new Error('crash'); });
    console.log(JSON.stringify({ url: server.url('postgres'), dataDir: server.dataDir, fresh: server.fresh }));`,
    uid,
  );
  return { child, ready: firstLine(child).then((line) => JSON.parse(line)) };
}

/** The pids of everything that runs on this data: the postmaster by its arguments, its children by their title. */
export async function processesOf(dataDir: string): Promise<number[]> {
  const all = await listProcesses();
  const postmasters = all.filter(({ command }) => command.includes(`-D ${dataDir} `));
  const name = /cluster_name=(\S+)/.exec(postmasters[0]?.command ?? '')?.[1];
  const workers = name === undefined ? [] : all.filter(({ command }) => command.startsWith(`postgres: ${name}`));
  return [...postmasters, ...workers].map(({ pid }) => pid);
}

/** What below a folder (itself included) others could read, write or enter, by its modes. */
export async function openToOthers(folder: string): Promise<string[]> {
  const names = ['.', ...(await readdir(folder, { recursive: true }))];
  const modes = await Promise.all(names.map(async (name) => (await lstat(join(folder, name))).mode));
  return names.filter((_, index) => ((modes[index] ?? 0) & 0o077) !== 0);
}

/** Looks until there is something to see. */
export async function until<T>(look: () => Promise<T | undefined | false>): Promise<T> {
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    await pause(5);
  }
}
