import { createHash, randomUUID } from 'node:crypto';
import { chmod, lstat, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DevError, systemCode } from './dev-error.ts';
import { openPrivateFolder } from './dev-folder.ts';
import { type Account, installedNative, usableBinaries } from './postgres-binaries.ts';

const OUTSIDE = '/var/lib/mayfly-dev';

/** Where one embedded PostgreSQL lives, and as whom it runs. */
export interface PostgresHome {
  /** Below the dev folder: password and log. Ours alone, also when the server runs as somebody else. */
  readonly privateFolder: string;
  /** Holds the data; the server's account can pass through it. */
  readonly folder: string;
  readonly dataDir: string;
  /** The folder of the programs `postgres` and `initdb`. */
  readonly bin: string;
  /** Who the server runs as; undefined: this user. */
  readonly account: Account | undefined;
  /** Marks every process of this server, in its arguments or in its title. */
  readonly clusterName: string;
}

/**
 * Finds or makes the place. PostgreSQL refuses to run as root, and the dev folder is closed to everybody else: so for
 * root the server runs as `postgres` (else `nobody`) with its data in `/var/lib/mayfly-dev/<hash of dir>`.
 * @param dir the dev folder (`.mayfly`).
 */
export async function openPostgresHome(dir: string, log: (line: string) => void): Promise<PostgresHome> {
  const privateFolder = await openPrivateFolder(join(await openPrivateFolder(dir), 'postgres'));
  const account = process.getuid?.() === 0 ? await unprivilegedAccount() : undefined;
  const folder = account === undefined ? privateFolder : outsideFolder(privateFolder);
  if (account !== undefined) await openPassage(folder);
  const { native, copied } = await usableBinaries(installedNative(), account, folder);
  if (account !== undefined) {
    log(`PostgreSQL does not run as root: it runs as ${account.name}, with its data in ${folder}`);
  }
  if (copied) log(`PostgreSQL runs from a copy of its programs in ${native}`);
  const dataDir = join(folder, 'data');
  return { privateFolder, folder, dataDir, bin: join(native, 'bin'), account, clusterName: clusterName(dataDir) };
}

function outsideFolder(privateFolder: string): string {
  return join(OUTSIDE, createHash('sha256').update(privateFolder).digest('hex').slice(0, 16));
}

function clusterName(dataDir: string): string {
  return `mayfly-${createHash('sha256').update(dataDir).digest('hex').slice(0, 16)}`;
}

/**
 * Whether what lies in `dataDir` belongs to this dev folder. Whoever removed the dev folder meant to start afresh, so
 * data outside that was made for a former one with the same path is not adopted.
 */
export async function ownsData(home: PostgresHome): Promise<boolean> {
  if (home.folder === home.privateFolder) return true;
  const [ours, theirs] = await Promise.all([readText(idFile(home.privateFolder)), readText(idFile(home.folder))]);
  return ours !== undefined && ours === theirs;
}

/** Ties what comes into `dataDir` to this dev folder. */
export async function claimData(home: PostgresHome): Promise<void> {
  if (home.folder === home.privateFolder) return;
  const id = randomUUID();
  await writeFile(idFile(home.privateFolder), id, { mode: 0o600 });
  await writeFile(idFile(home.folder), id, { mode: 0o600 });
}

const idFile = (folder: string): string => join(folder, 'data-id');

/** A folder of root that others can pass through but neither list nor write. */
async function openPassage(path: string): Promise<void> {
  if (path !== OUTSIDE) await openPassage(dirname(path));
  await mkdir(path, { recursive: true });
  const found = await lstat(path);
  if (!found.isDirectory() || found.uid !== 0 || (found.mode & 0o022) !== 0) {
    throw new DevError('folder_refused', `${path} must be a folder of root that nobody else may write. Remove it.`);
  }
  await chmod(path, 0o711);
}

/** `postgres` if the system has it, else `nobody`. No account is made. */
async function unprivilegedAccount(): Promise<Account> {
  const lines = (await readText('/etc/passwd'))?.split('\n') ?? [];
  for (const name of ['postgres', '_postgres', 'nobody']) {
    const [, , uid, gid] = lines.find((line) => line.startsWith(`${name}:`))?.split(':') ?? [];
    if (Number(uid) > 0 && Number(gid) > 0) return { uid: Number(uid), gid: Number(gid), name };
  }
  return { uid: 65534, gid: 65534, name: 'nobody' };
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}
