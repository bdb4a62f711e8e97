import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readdir, readlink, rm, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { installedNative, linkLibraries, usableBinaries } from './postgres-binaries.ts';

const run = promisify(execFile);
const asRoot = process.getuid?.() === 0;
const nobody = { uid: 65534, gid: 65534, name: 'nobody' };

let base: string;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'mayfly-binaries-'));
});
afterEach(() => rm(base, { recursive: true, force: true }));

test('an install whose scripts did not run gets its library links, once and for all', async () => {
  const native = await withoutLinks();
  await linkLibraries(native);
  const links = await linksIn(native);
  expect(links.length).toBeGreaterThanOrEqual(process.platform === 'linux' ? 14 : 0);
  await linkLibraries(native);
  expect(await linksIn(native)).toEqual(links);
  const { stdout } = await run(join(native, 'bin', 'postgres'), ['--version'], { env: {} });
  expect(stdout).toMatch(/^postgres \(PostgreSQL\) 18\./);
});

test('the installed programs are used where they run', async () => {
  const native = installedNative();
  expect(await usableBinaries(native, undefined, base)).toEqual({ native, copied: false });
  expect(await readdir(base)).toEqual([]);
});

test('programs in a folder that the account cannot enter are copied, once', async ({ skip }) => {
  if (!asRoot) skip('only root runs programs as somebody else');
  const closed = await withoutLinks();
  await chmod(join(base, 'install'), 0o700);
  const home = join(base, 'home');
  await mkdir(home);
  await chmod(base, 0o755);
  const used = await usableBinaries(closed, nobody, home);
  expect(used.copied).toBe(true);
  expect(used.native.startsWith(join(home, 'native-18.'))).toBe(true);
  const { stdout } = await run(join(used.native, 'bin', 'initdb'), ['--version'], { ...nobody, cwd: home, env: {} });
  expect(stdout).toContain('PostgreSQL');
  expect(await usableBinaries(closed, nobody, home)).toEqual(used);
  expect(await readdir(home)).toHaveLength(1);
});

test('programs that run nowhere are told with the reason', async () => {
  const native = await withoutLinks();
  await rm(join(native, 'bin', 'postgres'));
  const home = join(base, 'home');
  await mkdir(home);
  await expect(usableBinaries(native, undefined, home)).rejects.toMatchObject({
    code: 'platform_unsupported',
    message: expect.stringContaining('ENOENT'),
  });
});

/** The installed package as `npm ci --ignore-scripts` leaves it. */
async function withoutLinks(): Promise<string> {
  const copy = join(base, 'install', 'package');
  await cp(join(installedNative(), '..'), copy, { recursive: true, verbatimSymlinks: true });
  const native = join(copy, 'native');
  for (const [place] of await linksIn(native)) await unlink(join(native, 'lib', place));
  expect(await linksIn(native)).toEqual([]);
  return native;
}

async function linksIn(native: string): Promise<[name: string, to: string][]> {
  const entries = await readdir(join(native, 'lib'), { withFileTypes: true });
  const names = entries.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name);
  return Promise.all(names.map(async (name) => [name, await readlink(join(native, 'lib', name))]));
}
