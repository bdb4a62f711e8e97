import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Credential } from '../../client/index.ts';
import { CliError } from '../fail.ts';

/** Where a credential is laid for the child. */
export interface Handover {
  readonly env: NodeJS.ProcessEnv;
  /** Takes the files away. */
  remove(): void;
}

/**
 * Lays a Postgres credential for the child: libpq's variables, and the password in a file that only this user can read.
 * @param inEnvironment in `PGPASSWORD` and `DATABASE_URL` too.
 * @throws CliError for a credential of another kind.
 */
export function handOver(credential: Credential, inEnvironment: boolean): Handover {
  const text = (name: string) => {
    const value = credential[name];
    return typeof value === 'string' || typeof value === 'number' ? String(value) : '';
  };
  if (text('username') === '' || text('database') === '')
    throw new CliError('`mayfly run` hands over Postgres credentials; this one is of another kind.');
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-run-'));
  const released = removeWhenKilled(folder);
  const passwordFile = join(folder, 'pgpass');
  const line = ['host', 'port', 'database', 'username', 'password'].map((name) => text(name).replace(/[\\:]/g, '\\$&'));
  writeFileSync(passwordFile, `${line.join(':')}\n`, { mode: 0o600 });
  const env: NodeJS.ProcessEnv = {
    ...withoutOurs(process.env),
    PGHOST: text('host'),
    PGPORT: text('port'),
    PGDATABASE: text('database'),
    PGUSER: text('username'),
    PGSSLMODE: text('sslmode'),
    PGPASSFILE: passwordFile,
  };
  if (text('ca_pem') !== '') {
    env['PGSSLROOTCERT'] = join(folder, 'ca.pem');
    writeFileSync(join(folder, 'ca.pem'), text('ca_pem'), { mode: 0o600 });
  }
  if (inEnvironment) Object.assign(env, { PGPASSWORD: text('password'), DATABASE_URL: text('url') });
  return {
    env,
    remove: () => {
      rmSync(folder, { recursive: true, force: true });
      released();
    },
  };
}

/** Our own settings and tokens are not the child's business; another connection's variables would mislead it. */
function withoutOurs(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !name.startsWith('MAYFLY_') && !/^PG[A-Z]+$/.test(name)),
  );
}

/** A shell at the other end of a pipe removes the folder when this process ends in whatever way, by SIGKILL too. */
function removeWhenKilled(folder: string): () => void {
  const watchdog = spawn('sh', ['-c', 'cat >/dev/null; rm -rf -- "$0"', folder], {
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
    // Ctrl-C in a terminal must not reach it.
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  // Where there is no shell, `remove` alone must do.
  watchdog.on('error', () => {});
  watchdog.stdin.on('error', () => {});
  watchdog.unref();
  return () => void watchdog.stdin.end();
}
