import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, chown, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Secret } from '../../domain/secret.ts';
import { DevError } from './dev-error.ts';
import { randomSecret, readSecretFile, writeSecretFile } from './dev-folder.ts';
import { claimData, ownsData, type PostgresHome } from './postgres-home.ts';
import { endDraftPrograms, serverArguments } from './postmaster.ts';
import { scramVerifier } from './scram.ts';

/** The superuser of the embedded server. */
export const SUPERUSER = 'postgres';

export interface PreparedCluster {
  readonly password: Secret<string>;
  /** The data was made by this call. */
  readonly fresh: boolean;
}

/**
 * Makes the data directory, or keeps the one that is there. Needs that no server runs on it.
 *
 * It is made under another name and renamed when it is whole, so `data` is never half made; what a killed start left
 * is removed. A lost password file gives a new password, and keeps the data.
 * @throws DevError `server_failed`
 */
export async function prepareCluster(home: PostgresHome): Promise<PreparedCluster> {
  await removeDrafts(home);
  const passwordFile = join(home.privateFolder, 'superuser-password');
  if (!((await isWhole(home.dataDir)) && (await ownsData(home)))) {
    return { password: await createCluster(home, passwordFile), fresh: true };
  }
  const kept = await readSecretFile(passwordFile);
  if (kept !== undefined) return { password: kept, fresh: false };
  const password = randomSecret();
  await runSingle(home, home.dataDir, [await passwordStatement(password)]);
  await writeSecretFile(passwordFile, password);
  return { password, fresh: false };
}

async function createCluster(home: PostgresHome, passwordFile: string): Promise<Secret<string>> {
  const draft = join(home.folder, `data.new-${randomBytes(6).toString('hex')}`);
  await mkdir(draft, { mode: 0o700 });
  try {
    if (home.account !== undefined) await chown(draft, home.account.uid, home.account.gid);
    await initialize(home, draft);
    const password = randomSecret();
    await runSingle(home, draft, [
      await passwordStatement(password),
      // Who is let into one database has no business in the others.
      'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC',
    ]);
    await writeSecretFile(passwordFile, password);
    await rm(home.dataDir, { recursive: true, force: true });
    await claimData(home);
    await rename(draft, home.dataDir);
    return password;
  } finally {
    await rm(draft, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * initdb with `reject` for every connection: it then needs no password, so none ever stands in a file that the server's
 * account must be able to read, and data that is started without our own pg_hba.conf lets nobody in.
 */
async function initialize(home: PostgresHome, dataDir: string): Promise<void> {
  const { code, output } = await runProgram(home, 'initdb', [
    ...['-D', dataDir, '-U', SUPERUSER, '--auth=reject', '--data-checksums', '--no-instructions'],
    // The builtin provider needs no locale of this system, and sorts alike everywhere.
    ...['--encoding=UTF8', '--locale-provider=builtin', '--builtin-locale=C.UTF-8', '--locale=C'],
  ]);
  if (code === 0) return;
  const hint = /could not look up effective user ID/.test(output)
    ? '\nPostgreSQL needs an account for the user that runs it: run dev mode as one that this system knows.'
    : '';
  throw failed(`could not make its data in ${dataDir}`, `${output.trim()}${hint}`);
}

async function passwordStatement(password: Secret<string>): Promise<string> {
  return `ALTER ROLE ${SUPERUSER} PASSWORD '${await scramVerifier(password)}'`;
}

/** Runs statements in single-user mode: no network, no login. Each must be one line. */
async function runSingle(home: PostgresHome, dataDir: string, statements: readonly string[]): Promise<void> {
  const { code, output } = await runProgram(
    home,
    'postgres',
    [
      ...['--single', ...serverArguments({ ...home, dataDir })],
      ...['-c', 'log_min_messages=error', '-c', 'log_min_error_statement=panic', 'postgres'],
    ],
    `${statements.join('\n')}\n`,
  );
  // It ends with status 0 also after a statement that failed.
  if (code !== 0 || /\b(ERROR|FATAL|PANIC):/.test(output)) throw failed(`could not set up ${dataDir}`, output);
}

async function runProgram(
  home: PostgresHome,
  name: string,
  args: readonly string[],
  input = '',
): Promise<{ code: number | null; output: string }> {
  const child = spawn(join(home.bin, name), args, { ...spawnOptions(home), stdio: ['pipe', 'pipe', 'pipe'] });
  const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
  // A program that ends early leaves its input unread; its status says why.
  child.stdin.on('error', () => undefined).end(input);
  const [code, out, err] = await Promise.all([ended, text(child.stdout), text(child.stderr)]);
  return { code, output: `${out}\n${err}` };
}

/** As whom and where a program of this server runs; with nothing of our environment (`PG*`, secrets) in it. */
export function spawnOptions(home: PostgresHome): { cwd: string; env: NodeJS.ProcessEnv; uid?: number; gid?: number } {
  const as = home.account === undefined ? {} : { uid: home.account.uid, gid: home.account.gid };
  return { ...as, cwd: home.folder, env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C', TZ: 'UTC' } };
}

async function removeDrafts(home: PostgresHome): Promise<void> {
  for (const name of await readdir(home.folder)) {
    if (!name.startsWith('data.new-')) continue;
    const draft = join(home.folder, name);
    await endDraftPrograms(home, draft);
    // What initdb itself had started ends with it, but may write for another moment.
    await rm(draft, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  }
}

async function isWhole(dataDir: string): Promise<boolean> {
  return access(join(dataDir, 'global', 'pg_control')).then(
    () => true,
    () => false,
  );
}

function failed(what: string, output: string): DevError {
  return new DevError('server_failed', `The embedded PostgreSQL ${what}:\n${output.trim().slice(-2_000)}`);
}
