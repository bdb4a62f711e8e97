import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { freePort } from './free-port.ts';
import { runAs } from './postgres-binaries.ts';
import type { PostgresServer } from './postgres-servers.ts';

export interface Pgbouncer {
  /** On 127.0.0.1. */
  readonly port: number;
  log(): string;
  /** Ends it and removes its files. Safe to call twice. */
  stop(): Promise<void>;
}

export interface PgbouncerOptions {
  readonly mode: 'session' | 'transaction';
  /**
   * A login that may read verifiers (`auth_query`): so the pool knows roles that come and go, and logs in as each of
   * them with what the client proved.
   */
  readonly lookup: { readonly user: string; readonly password: string };
  /** `user=` in the database line: all clients work as this one. */
  readonly forced?: { readonly user: string; readonly password: string };
  /** Lines for the section `[pgbouncer]`. */
  readonly settings?: readonly string[];
}

function find(): string | undefined {
  return [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
    .map((folder) => join(folder, 'pgbouncer'))
    .find((file) => existsSync(file));
}

/** Whether there is a PgBouncer to start. Where there must be one, in CI, its absence is a failure. */
export function pgbouncerAvailable(): boolean {
  const found = find() !== undefined;
  if (!found && process.env['CI'] === 'true') throw new Error('pgbouncer is missing');
  if (!found) console.warn('\n*** SKIPPED: pgbouncer is not installed: nothing is tested behind a pooler ***\n');
  return found;
}

/** A PgBouncer of its own before that server, for every database of it. It ends with this process, however that dies. */
export async function startPgbouncer(server: PostgresServer, options: PgbouncerOptions): Promise<Pgbouncer> {
  const binary = find();
  if (binary === undefined) throw new Error('pgbouncer is not installed');
  const user = runAs();
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-pgbouncer-'));
  const write = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    chmodSync(path, 0o600);
    if (user !== undefined) chownSync(path, user.uid, user.gid);
    return path;
  };
  chmodSync(folder, 0o700);
  if (user !== undefined) chownSync(folder, user.uid, user.gid);
  const port = await freePort();
  const { lookup, forced } = options;
  const users = [lookup, ...(forced === undefined ? [] : [forced])];
  const list = write('users.txt', users.map((each) => `"${each.user}" "${each.password}"\n`).join(''));
  const log = write('log', '');
  const force = forced === undefined ? '' : ` user=${forced.user}`;
  const config = write(
    'pgbouncer.ini',
    [
      '[databases]',
      `* = host=${server.host} port=${server.port}${force}`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      'unix_socket_dir =',
      'auth_type = scram-sha-256',
      `auth_file = ${list}`,
      `auth_user = ${lookup.user}`,
      'auth_query = SELECT usename, passwd FROM pg_catalog.pg_shadow WHERE usename = $1',
      `pool_mode = ${options.mode}`,
      'default_pool_size = 3',
      'query_wait_timeout = 3',
      'server_login_retry = 1',
      ...(options.settings ?? []),
      '',
    ].join('\n'),
  );
  // Ends with its parent: `cat` sees the end of the pipe when this process dies, however it dies.
  const script =
    '"$0" "$1" >>"$2" 2>&1 & pooler=$!; (cat >/dev/null; kill -9 $pooler 2>/dev/null) <&3 & wait $pooler; rm -rf "$3"';
  const child: ChildProcess = spawn('sh', ['-c', `exec 3<&0; ${script}`, binary, config, log, folder], {
    ...user,
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, 'exit');
      child.stdin?.end();
      await gone;
    }
  };
  try {
    await listening(port, child, () => readFileSync(log, 'utf8'));
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, log: () => readFileSync(log, 'utf8'), stop };
}

async function listening(port: number, child: ChildProcess, log: () => string): Promise<void> {
  for (const deadline = Date.now() + 20_000; ; ) {
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('pgbouncer did not start');
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([
      once(socket, 'connect').then(() => true),
      once(socket, 'error').then(() => false),
    ]).catch(() => false);
    socket.destroy();
    if (open) return;
    if (Date.now() > deadline) throw new Error(`pgbouncer does not listen:\n${log().slice(-2000)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
