import { chmod, chown, lstat, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Secret } from '../../domain/secret.ts';
import { keepSecretFile, openPrivateFolder, randomSecret, readSecretFile, writeSecretFile } from './dev-folder.ts';

const asRoot = process.getuid?.() === 0;
let base: string;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'mayfly-folder-'));
});
afterEach(() => rm(base, { recursive: true, force: true }));

const modeOf = async (path: string): Promise<string> => ((await lstat(path)).mode & 0o777).toString(8);

describe('openPrivateFolder', () => {
  test('makes a folder that only we may enter, whatever the umask', async () => {
    const path = join(base, '.mayfly');
    await withUmask(0, () => openPrivateFolder(path));
    expect(await modeOf(path)).toBe('700');
    expect(await openPrivateFolder(path)).toBe(path);
  });

  test('takes from others the right to read a folder that exists', async () => {
    const path = join(base, '.mayfly');
    await mkdir(path);
    await chmod(path, 0o755);
    await openPrivateFolder(path);
    expect(await modeOf(path)).toBe('700');
  });

  test('refuses a folder that others may have written into', async () => {
    const path = join(base, '.mayfly');
    await mkdir(path);
    await chmod(path, 0o770);
    await expect(openPrivateFolder(path)).rejects.toMatchObject({
      code: 'folder_refused',
      message: expect.stringContaining(`chmod 700 ${path}`),
    });
  });

  test('refuses a symbolic link, also to a good folder and to nothing', async () => {
    await openPrivateFolder(join(base, 'good'));
    for (const to of ['good', 'nothing']) {
      const path = join(base, `link-to-${to}`);
      await symlink(join(base, to), path);
      await expect(openPrivateFolder(path)).rejects.toMatchObject({
        code: 'folder_refused',
        message: expect.stringContaining('symbolic link'),
      });
    }
    expect(await readdir(base)).not.toContain('nothing');
  });

  test('refuses a file', async () => {
    const path = join(base, '.mayfly');
    await writeFile(path, '');
    await expect(openPrivateFolder(path)).rejects.toMatchObject({ code: 'folder_refused' });
  });

  test.skipIf(!asRoot)('refuses a folder of another user, and names that user', async () => {
    const path = join(base, '.mayfly');
    await openPrivateFolder(path);
    await chown(path, 12345, 12345);
    await expect(openPrivateFolder(path)).rejects.toMatchObject({
      code: 'folder_refused',
      message: expect.stringContaining('uid 12345'),
    });
  });
});

describe('secret files', () => {
  test('are written with mode 0600, whatever the umask, and read back', async () => {
    const path = join(base, 'password');
    await withUmask(0, () => writeSecretFile(path, new Secret('hunter2')));
    expect(await modeOf(path)).toBe('600');
    expect((await readSecretFile(path))?.reveal()).toBe('hunter2');
    expect(await readdir(base)).toEqual(['password']);
  });

  test('are kept once made', async () => {
    const path = join(base, 'password');
    const first = await keepSecretFile(path, randomSecret);
    const again = await keepSecretFile(path, randomSecret);
    expect(again.reveal()).toBe(first.reveal());
    expect(first.reveal()).toMatch(/^[\w-]{32}$/);
    expect(inspect(first)).toBe('[secret]');
  });

  test('that are empty count as lost, and are made anew', async () => {
    const path = join(base, 'password');
    await writeFile(path, '\n', { mode: 0o600 });
    expect(await readSecretFile(path)).toBeUndefined();
    expect((await keepSecretFile(path, () => new Secret('new'))).reveal()).toBe('new');
  });

  test('that others may read are refused', async () => {
    const path = join(base, 'password');
    await writeSecretFile(path, new Secret('hunter2'));
    await chmod(path, 0o640);
    await expect(readSecretFile(path)).rejects.toMatchObject({ code: 'secret_file_refused' });
    await expect(keepSecretFile(path, randomSecret)).rejects.toThrow(path);
  });

  test('behind a symbolic link are refused, and a write replaces the link, not what it points to', async () => {
    const elsewhere = join(base, 'elsewhere');
    const path = join(base, 'password');
    await writeSecretFile(elsewhere, new Secret('theirs'));
    await symlink(elsewhere, path);
    await expect(readSecretFile(path)).rejects.toMatchObject({ code: 'secret_file_refused' });
    await writeSecretFile(path, new Secret('ours'));
    expect((await readSecretFile(elsewhere))?.reveal()).toBe('theirs');
    expect((await lstat(path)).isSymbolicLink()).toBe(false);
  });

  test('leave no draft behind when the write fails', async () => {
    const path = join(base, 'password');
    await mkdir(join(path, 'in-the-way'), { recursive: true });
    await expect(writeSecretFile(path, new Secret('x'))).rejects.toThrow('EISDIR');
    expect(await readdir(base)).toEqual(['password']);
    expect((await stat(path)).isDirectory()).toBe(true);
  });
});

async function withUmask<T>(mask: number, work: () => Promise<T>): Promise<T> {
  const before = process.umask(mask);
  try {
    return await work();
  } finally {
    process.umask(before);
  }
}
