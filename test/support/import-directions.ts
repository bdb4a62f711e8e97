import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative, sep } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/**
 * Which part of the house may import which (DESIGN §6). The imports are those that the compiler itself resolved
 * (`tsc --explainFiles`), type imports and re-exports among them, so nothing is parsed here.
 */

/** Rooms under `src/`, lowest first. A room may import what stands on a lower floor. */
const floors: readonly (readonly string[])[] = [
  ['domain'],
  ['catalog', 'identity', 'policy', 'audit', 'store'],
  ['broker', 'revocation'],
  ['cli', 'http', 'console', 'gateway'],
];

/**
 * The only imports between rooms of one floor, as [who, whom]; `catalog/types` is that room's `types.ts` alone, which
 * itself imports no more of its room than other such files. Without a cycle: that is checked at start.
 */
export const sameFloor: readonly (readonly [string, string])[] = [
  ['cli', 'http'],
  ['catalog', 'policy'],
  ['catalog', 'policy/types'],
  ['identity', 'catalog/types'],
  ['identity/types', 'catalog/types'],
  ['policy', 'catalog/types'],
  ['policy/types', 'catalog/types'],
  ['store', 'audit'],
];

/** Files directly under `src/`, and which packages of others they may import (null: any). */
const shared: Readonly<Record<string, { readonly packages: readonly string[] | null }>> = {
  config: { packages: ['zod'] },
  provider: { packages: ['zod'] },
  metrics: { packages: ['prom-client'] },
};

/** May import providers, and load a module whose name is only known at run time. */
const loaders = ['src/wiring.ts', 'src/catalog/provider-registry.ts'];

export interface Import {
  /** Path from the root, with forward slashes. */
  readonly from: string;
  /** Path from the root, or `npm:<package>`. */
  readonly to: string;
}

/** Every import of our own files, and of packages, that the compiler sees in the project at `root`. */
export function readImports(root: string): Import[] {
  const tsc = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));
  const args = [tsc, '--noEmit', '--explainFiles', '--pretty', 'false'];
  let said: string;
  try {
    said = execFileSync(process.execPath, args, { cwd: root, encoding: 'utf8', maxBuffer: 64 << 20, stdio: 'pipe' });
  } catch (error) {
    // Type errors are the type check's business; the list is printed all the same.
    if (!(error instanceof Error && 'stdout' in error && typeof error.stdout === 'string')) throw error;
    said = error.stdout;
  }
  const imports: Import[] = [];
  let file = '';
  for (const line of said.split('\n')) {
    if (/^\S/.test(line)) file = line.trim();
    const found = /^\s+Imported via ["'](.+?)["'] from file '(.+?)'/.exec(line);
    const [, name = '', from = ''] = found ?? [];
    if (found === null || isPackage(from)) continue;
    imports.push({ from, to: isPackage(file) ? `npm:${packageName(name)}` : file });
  }
  return imports;
}

function isPackage(file: string): boolean {
  return file.split('/').includes('node_modules');
}

function packageName(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

/** What breaks the rules, one sentence each. */
export function brokenRules(imports: readonly Import[]): string[] {
  refuseCycles(sameFloor);
  return imports.flatMap(({ from, to }) => {
    const why = isPublished(from) ? whyNotPublished(to) : isTest(from) ? undefined : whyNot(from, to);
    return why === undefined ? [] : [`${from} imports ${to}: ${why}`];
  });
}

function isTest(file: string): boolean {
  return /^test\/|\/testing\/|\.test\.ts$|^vitest\.config\.ts$/.test(file);
}

/** The contract suite is a part of the package: others run it without our tests, and without a test framework. */
const publishedTests = 'test/contract/provider/';

function isPublished(file: string): boolean {
  return file.startsWith(publishedTests);
}

function whyNotPublished(to: string): string | undefined {
  const allowed = to === 'src/provider.ts' || to.startsWith(publishedTests) || to.startsWith('npm:@types/node');
  return allowed ? undefined : 'the published contract suite imports src/provider.ts, its own files and Node';
}

function whyNot(from: string, to: string): string | undefined {
  if (isTest(to)) return 'only tests import tests';
  if (from.startsWith('providers/')) return whyNotProvider(from, to);
  const room = roomOf(from);
  if (room === 'wiring') return undefined;
  if (!isKnown(room)) return `${room} is no room of the house: give it a floor in import-directions.ts`;
  if (to.startsWith('npm:')) return whyNotPackage(room, to.slice('npm:'.length));
  if (to.startsWith('providers/')) {
    return loaders.includes(from) ? undefined : `only ${loaders.join(', ')} import providers`;
  }
  const other = roomOf(to);
  if (other === room || other === `${room}/types`) return undefined;
  if (room === 'client') return 'the client imports nothing of ours';
  if (other === 'wiring') return room === 'cli' ? undefined : 'only cli imports the wiring';
  if (other === 'client') return room === 'cli' ? undefined : 'only cli imports the client';
  if (room in shared) return other === 'domain' ? undefined : `src/${room}.ts imports only domain`;
  if (other in shared) return room === 'domain' ? 'domain imports nothing of ours' : undefined;
  const [here, there] = [floorOf(room), floorOf(other)];
  if (there < here) return undefined;
  if (there > here) return `${other} stands above ${room}`;
  const listed = sameFloor.some(([who, whom]) => who === room && whom === other);
  return listed ? undefined : `${room} and ${other} stand on one floor, and the list does not allow it`;
}

function whyNotProvider(from: string, to: string): string | undefined {
  const own = posix.join(...from.split('/').slice(0, 2));
  const allowed = to.startsWith('npm:') || to === 'src/provider.ts' || to.startsWith(`${own}/`);
  return allowed ? undefined : 'a provider imports src/provider.ts and its own files';
}

function whyNotPackage(room: string, name: string): string | undefined {
  const allowed = shared[room]?.packages ?? null;
  return allowed === null || allowed.includes(name) ? undefined : `src/${room}.ts imports only ${allowed.join(', ')}`;
}

/** `src/broker/open-task.ts` → `broker`; `src/catalog/types.ts` → `catalog/types`; `src/config.ts` → `config`. */
function roomOf(file: string): string {
  const [, room = '', name, ...deeper] = file.split('/');
  const own = name === 'types.ts' && deeper.length === 0 && floorOf(room) >= 0;
  return own ? `${room}/types` : room.replace(/\.ts$/, '');
}

function floorOf(room: string): number {
  return floors.findIndex((rooms) => rooms.includes(room.replace(/\/types$/, '')));
}

function isKnown(room: string): boolean {
  return room === 'client' || room in shared || floorOf(room) >= 0;
}

/** @throws Error when following the pairs leads back to where one began. */
export function refuseCycles(pairs: readonly (readonly [string, string])[]): void {
  const visit = (room: string, path: readonly string[]): void => {
    if (path.includes(room))
      throw new Error(`the list of one floor's imports has a cycle: ${[...path, room].join(' → ')}`);
    for (const [who, whom] of pairs) if (who === room) visit(whom, [...path, room]);
  };
  for (const [who] of pairs) visit(who, []);
}

/** Imports whose target is not written down (`import(name)`, `require`): the compiler can not see where they lead. */
export function unseenImports(root: string): string[] {
  return ['src', 'providers']
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .filter((file) => file.endsWith('.ts') && !isTest(file) && !loaders.includes(file))
    .flatMap((file) => {
      const text = readFileSync(join(root, file), 'utf8').replace(/^[ \t]*(\*|\/\/).*$/gm, '');
      return [...text.matchAll(/\bimport\((?!\s*['"])|\brequire\(/g)].map(({ index }) => {
        const line = text.slice(0, index).split('\n').length;
        return `${file}:${line}: loads a module by a name known only at run time; only ${loaders.join(', ')} may`;
      });
    });
}

/** @throws Error when the compiler showed no import at all: a check that sees nothing must not pass. */
export function checkImports(root: string): string[] {
  const imports = readImports(root);
  if (!imports.some(({ from }) => from.startsWith('src/')))
    throw new Error('tsc --explainFiles showed no import under src/');
  return [...brokenRules(imports), ...unseenImports(root)];
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  const broken = checkImports(root);
  for (const line of broken) console.error(line);
  process.exitCode = broken.length === 0 ? 0 : 1;
}
