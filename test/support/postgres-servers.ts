import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { makeCertificate } from './certificates.ts';
import { freePort } from './free-port.ts';
import { makeCluster } from './postgres-cluster.ts';
import { findBinaries, type PostgresVersion, type RunAs, runAs } from './postgres-binaries.ts';

export { availableVersions, type PostgresVersion } from './postgres-binaries.ts';

export type PostgresSettings = Readonly<Record<string, string | number | boolean>>;

export interface PostgresOptions {
  readonly version: PostgresVersion;
  /** Server settings (`-c name=value`), over those that make tests fast. */
  readonly settings?: PostgresSettings;
  /** A certificate from a CA of its own for these names or addresses; clients without TLS are then refused. */
  readonly tls?: { readonly names: readonly string[] };
  /** Lines put before the usual ones of `pg_hba.conf`. */
  readonly hba?: readonly string[];
  /** Instead of a new cluster: fills that folder with the data of another, whose superuser has that password. */
  readonly copy?: { readonly password: string; fill(data: string): Promise<void> };
}

export interface PostgresServer {
  readonly version: PostgresVersion;
  /** Always `127.0.0.1`. */
  readonly host: string;
  readonly port: number;
  /** The superuser is `postgres`; its password is random, and the same for all servers of a version on this machine. */
  readonly password: string;
  /** The CA that signed the server's certificate, where `tls` was asked for. */
  readonly caPem: string | null;
  /** `postgres://…` of the superuser, to that database (default `postgres`). Without TLS parameters. */
  superuserUrl(database?: string): string;
  /** Makes a database, by default a clone of `template1`, and returns the superuser's URL to it. */
  createDatabase(name: string, template?: string): Promise<string>;
  dropDatabase(name: string): Promise<void>;
  /** Everything the server has logged so far. */
  log(): string;
  /** Stops and starts on the same port and data; `immediate` is a crash. New settings go over the old ones. */
  restart(mode?: 'fast' | 'immediate', settings?: PostgresSettings): Promise<void>;
  /** Goes down and keeps its data, until `restart`. */
  halt(mode?: 'fast' | 'immediate'): Promise<void>;
  /** Ends the server and removes its data. Safe to call twice. */
  stop(): Promise<void>;
}

/** Durability is of no use to a test; everything else stays as in production. */
const fastSettings: PostgresSettings = {
  fsync: 'off',
  full_page_writes: 'off',
  shared_buffers: '32MB',
  max_connections: 150,
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  log_timezone: 'UTC',
};

/**
 * Starts a PostgreSQL of its own in a folder under the temporary directory: about a second for a file's first one.
 * It ends with `stop()`, and also when this process dies, however it dies: a watchdog holds the other end of a pipe.
 * @throws Error when that version is not installed (ask `availableVersions` first) or does not start.
 */
export async function startPostgres(options: PostgresOptions): Promise<PostgresServer> {
  const bin = findBinaries(options.version);
  if (bin === null) {
    throw new Error(`PostgreSQL ${options.version} is not installed`);
  }
  const user = runAs();
  const folder = mkdtempSync(join(tmpdir(), `mayfly-pg${options.version}-`));
  const own = (path: string, mode: number): void => {
    chmodSync(path, mode);
    if (user !== undefined) {
      chownSync(path, user.uid, user.gid);
    }
  };
  own(folder, 0o700);
  const data = join(folder, 'data');
  const logFile = join(folder, 'server.log');
  const watchdog = startWatchdog(bin, data, folder, user);

  writeFileSync(logFile, '');
  own(logFile, 0o600);
  let password: string;
  try {
    await options.copy?.fill(data);
    password = options.copy?.password ?? makeCluster(bin, data, user);
  } catch (error) {
    watchdog.stdin?.end();
    throw error;
  }

  let settings: PostgresSettings = { ...fastSettings, ...options.settings };
  let caPem: string | null = null;
  if (options.tls !== undefined) {
    const tls = join(folder, 'tls');
    mkdirSync(tls);
    const certificate = makeCertificate(tls, options.tls.names);
    caPem = certificate.caPem;
    own(tls, 0o700);
    own(certificate.keyFile, 0o600);
    own(certificate.certFile, 0o600);
    settings = { ...settings, ssl: 'on', ssl_cert_file: certificate.certFile, ssl_key_file: certificate.keyFile };
  }
  const kind = options.tls === undefined ? 'host' : 'hostssl';
  const hba = [
    ...(options.hba ?? []),
    `${kind} all all 127.0.0.1/32 scram-sha-256`,
    `${kind} replication all 127.0.0.1/32 scram-sha-256`,
  ];
  writeFileSync(join(data, 'pg_hba.conf'), `${hba.join('\n')}\n`);

  let port = 0;
  let server: ChildProcess | null = null;
  const superuserUrl = (database = 'postgres'): string =>
    `postgres://postgres:${password}@127.0.0.1:${port}/${encodeURIComponent(database)}`;
  const client = (database?: string): pg.Client =>
    new pg.Client({
      connectionString: superuserUrl(database),
      ...(caPem === null ? {} : { ssl: { ca: caPem, checkServerIdentity: () => undefined } }),
    });

  const start = async (): Promise<void> => {
    const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${String(value)}`]);
    const log = openSync(logFile, 'a');
    const child = spawn(join(bin, 'postgres'), ['-D', data, '-p', String(port), ...args], {
      ...user,
      cwd: folder,
      // A group of its own, so that Ctrl-C in a terminal does not take it away under the tests' feet.
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    server = child;
    await ready(child, client, () => readFileSync(logFile, 'utf8'));
  };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (server !== null && server.exitCode === null && server.signalCode === null) {
      const gone = once(server, 'exit');
      server.kill(signal);
      await gone;
    }
    server = null;
  };

  for (let attempt = 1; ; attempt += 1) {
    port = await freePort();
    try {
      await start();
      break;
    } catch (error) {
      await end('SIGQUIT');
      // Between finding the free port and taking it, another test may have taken it.
      if (attempt === 5 || !readFileSync(logFile, 'utf8').includes('Address already in use')) {
        watchdog.stdin?.end();
        throw error;
      }
    }
  }

  const admin = async (sql: string): Promise<void> => {
    const connection = client();
    await connection.connect();
    try {
      await connection.query(sql);
    } finally {
      await connection.end();
    }
  };
  const quoted = (name: string): string => pg.escapeIdentifier(name);
  let stopped: Promise<void> | null = null;
  return {
    version: options.version,
    host: '127.0.0.1',
    port,
    password,
    caPem,
    superuserUrl,
    async createDatabase(name, template = 'template1') {
      await admin(`CREATE DATABASE ${quoted(name)} TEMPLATE ${quoted(template)}`);
      return superuserUrl(name);
    },
    dropDatabase: (name) => admin(`DROP DATABASE IF EXISTS ${quoted(name)} WITH (FORCE)`),
    log: () => readFileSync(logFile, 'utf8'),
    async restart(mode = 'fast', more = {}) {
      settings = { ...settings, ...more };
      await end(mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
      await start();
    },
    halt: (mode = 'fast') => end(mode === 'fast' ? 'SIGINT' : 'SIGQUIT'),
    stop() {
      stopped ??= (async () => {
        await end('SIGQUIT');
        const gone = once(watchdog, 'exit');
        watchdog.ref();
        watchdog.stdin?.end();
        await gone;
      })();
      return stopped;
    },
  };
}

/** Waits for end-of-file on its input, which comes when this process ends for any reason, then ends and removes all. */
function startWatchdog(bin: string, data: string, folder: string, user: RunAs | undefined): ChildProcess {
  const script = 'cat >/dev/null; "$0" stop -s -m immediate -D "$1" >/dev/null 2>&1; rm -rf "$2"';
  const child = spawn('sh', ['-c', script, join(bin, 'pg_ctl'), data, folder], {
    ...user,
    cwd: '/',
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  child.unref();
  return child;
}

async function ready(server: ChildProcess, client: () => pg.Client, log: () => string): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    if (server.exitCode !== null || server.signalCode !== null) {
      throw new Error(`postgres did not start:\n${log().slice(-2000)}`);
    }
    const connection = client();
    connection.on('error', () => {});
    try {
      await connection.connect();
      await connection.end();
      return;
    } catch (error) {
      await connection.end().catch(() => {});
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      // 57P03: still starting up.
      if ((code !== 'ECONNREFUSED' && code !== '57P03' && code !== 'ECONNRESET') || Date.now() > deadline) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
