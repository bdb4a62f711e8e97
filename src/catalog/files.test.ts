import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { readCatalogFiles } from './files.ts';
import { catalogLimits } from './layout.ts';

let base: string;
let folder: string;

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'mayfly-catalog-'));
  folder = join(base, 'catalog');
  await mkdir(folder);
});
afterEach(() => rm(base, { recursive: true }));

async function put(path: string, content: string | Uint8Array): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true });
  await writeFile(join(folder, path), content);
}

async function refused(): Promise<readonly string[]> {
  const outcome = await readCatalogFiles(folder).then(
    () => 'accepted',
    (error: unknown) => error,
  );
  if (!(outcome instanceof MayflyError)) throw new Error(`not refused: ${String(outcome)}`);
  return outcome.errors.map(({ path, message }) => `${path}: ${message}`);
}

test('a folder is read as path and text, key sets included', async () => {
  await put('trust.yaml', '{}\n');
  await put('policies/tests/a.yaml', '[]');
  await put('keys/cluster.json', '{}');
  expect(await readCatalogFiles(folder)).toEqual({
    'trust.yaml': '{}\n',
    'policies/tests/a.yaml': '[]',
    'keys/cluster.json': '{}',
  });
});

test('files that do not belong there are refused, all by name', async () => {
  await put('README.md', '');
  await put('policies/.hidden.cedar', '');
  await put('targets/ledger.yml', '');
  await put('trust.yaml', '');
  expect(await refused()).toEqual([
    'README.md:1: is not a file of the catalog',
    'policies/.hidden.cedar:1: is not a file of the catalog',
    'targets/ledger.yml:1: is not a file of the catalog',
  ]);
});

test('what an editor keeps beside an open file is not looked at', async () => {
  for (const name of ['.trust.yaml.swp', 'trust.yaml~', '.#trust.yaml', '#trust.yaml#']) await put(name, '');
  await put('trust.yaml', '');
  expect(Object.keys(await readCatalogFiles(folder))).toEqual(['trust.yaml']);
});

test('what Git keeps beside a catalog is not looked at', async () => {
  await put('.git/config', '');
  await put('.gitignore', '');
  await put('targets/.gitkeep', '');
  expect(await readCatalogFiles(folder)).toEqual({});
});

test('a catalog mounted from a Kubernetes ConfigMap is read through its links', async () => {
  await put('..2026_01_01/trust.yaml', 'a');
  await symlink('..2026_01_01', join(folder, '..data'));
  await symlink('..data/trust.yaml', join(folder, 'trust.yaml'));
  expect(await readCatalogFiles(folder)).toEqual({ 'trust.yaml': 'a' });
});

test('links out of the folder are refused, of files and of folders, also to a folder with the same beginning', async () => {
  await writeFile(join(base, 'outside.yaml'), 'secret');
  await mkdir(join(base, 'catalog-other'));
  await writeFile(join(base, 'catalog-other', 'a.yaml'), 'secret');
  await symlink('../outside.yaml', join(folder, 'trust.yaml'));
  await symlink('../catalog-other', join(folder, 'targets'));
  await symlink('nowhere', join(folder, 'purposes.yaml'));
  expect(await refused()).toEqual([
    'purposes.yaml:1: is a link that leads nowhere',
    'targets:1: is a link out of the catalog folder',
    'trust.yaml:1: is a link out of the catalog folder',
  ]);
});

test('a link to the folder itself does not go round for ever', async () => {
  await mkdir(join(folder, 'keys'));
  await symlink('..', join(folder, 'keys', 'loop'));
  expect((await refused()).length).toBeGreaterThan(0);
});

test('files that are too large, not UTF-8 or not files are refused', async () => {
  await put('trust.yaml', 'x'.repeat(catalogLimits.fileBytes + 1));
  await put('purposes.yaml', new Uint8Array([0xff, 0xfe]));
  execFileSync('mkfifo', [join(folder, 'limits.yaml')]);
  expect(await refused()).toEqual([
    'limits.yaml:1: is not a file',
    'purposes.yaml:1: is not UTF-8 text',
    `trust.yaml:1: is larger than ${catalogLimits.fileBytes} bytes`,
  ]);
});

test('a folder that is too large is given up', async () => {
  const content = 'x'.repeat(catalogLimits.fileBytes);
  const count = catalogLimits.totalBytes / catalogLimits.fileBytes + 2;
  await Promise.all(Array.from({ length: count }, (_, n) => put(`targets/t${n}.yaml`, content)));
  expect(await refused()).toEqual(['.:1: a catalog holds at most 2000 files and 8388608 bytes']);
});

test('a folder that is not there is refused', async () => {
  folder = join(base, 'nowhere');
  expect(await refused()).toEqual(['.:1: the catalog folder is not there']);
});
