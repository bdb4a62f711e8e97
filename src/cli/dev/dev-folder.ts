import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { chmod, lstat, mkdir, open, realpath, rename, rm } from 'node:fs/promises';
import { Secret } from '../../domain/secret.ts';
import { DevError, systemCode } from './dev-error.ts';

/**
 * Makes a private folder (mode 0700), or checks one that exists: a real directory, ours, not writable by others.
 * Mode bits that only let others read are taken away; a folder that others could have written into is refused.
 * @returns its real path.
 * @throws DevError `folder_refused`
 */
export async function openPrivateFolder(path: string): Promise<string> {
  // What is there is looked at first: mkdir would follow a link.
  const found = await lstat(path).catch(async (error: unknown) => {
    if (systemCode(error) !== 'ENOENT') throw error;
    await mkdir(path, { recursive: true, mode: 0o700 });
    return lstat(path);
  });
  if (found.isSymbolicLink()) throw refused(path, 'it is a symbolic link. Remove it');
  if (!found.isDirectory()) throw refused(path, 'it is not a folder. Remove it');
  if (foreign(found.uid)) {
    throw refused(path, `it belongs to uid ${found.uid}, not to you. Remove it, or run as that user`);
  }
  if ((found.mode & 0o022) !== 0) {
    throw refused(path, `others may write into it. Look at what it holds, then \`chmod 700 ${path}\` or remove it`);
  }
  if ((found.mode & 0o777) !== 0o700) await chmod(path, 0o700);
  return realpath(path);
}

/**
 * The secret in a file of mode 0600, without white space around it; undefined when there is no file, or an empty one.
 * @throws DevError `secret_file_refused` for a symbolic link, a file of somebody else, or one that others may read.
 */
export async function readSecretFile(path: string): Promise<Secret<string> | undefined> {
  // O_NOFOLLOW and fstat: what is checked is what is read.
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw secretRefused(path, 'it cannot be opened, or is a symbolic link', error);
  });
  if (file === undefined) return undefined;
  try {
    const found = await file.stat();
    if (!found.isFile()) throw secretRefused(path, 'it is not a file');
    if (foreign(found.uid)) throw secretRefused(path, `it belongs to uid ${found.uid}, not to you`);
    if ((found.mode & 0o077) !== 0) throw secretRefused(path, 'others may read it (its mode is not 0600)');
    const text = (await file.readFile('utf8')).trim();
    return text === '' ? undefined : new Secret(text);
  } finally {
    await file.close();
  }
}

/** Writes a secret whole or not at all; at no instant may anyone else read it. */
export async function writeSecretFile(path: string, secret: Secret<string>): Promise<void> {
  const draft = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(draft, 'wx', 0o600);
    try {
      await file.writeFile(`${secret.reveal()}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
}

/** The secret in the file, or a new one from `make`, written there first. */
export async function keepSecretFile(path: string, make: () => Secret<string>): Promise<Secret<string>> {
  const kept = await readSecretFile(path);
  if (kept !== undefined) return kept;
  const made = make();
  await writeSecretFile(path, made);
  return made;
}

/** 192 random bits in URL-safe ASCII, so that SASLprep and URLs leave it as it is. */
export function randomSecret(): Secret<string> {
  return new Secret(randomBytes(24).toString('base64url'));
}

function foreign(uid: number): boolean {
  return process.getuid !== undefined && uid !== process.getuid();
}

function refused(path: string, why: string): DevError {
  return new DevError('folder_refused', `The folder ${path} is not used: ${why}, then start again.`);
}

function secretRefused(path: string, why: string, cause?: unknown): DevError {
  return new DevError(
    'secret_file_refused',
    `The secret in ${path} is not used: ${why}. Remove the file to have a new secret made.`,
    cause,
  );
}
