import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const DAY_MILLIS = 86_400_000;

let known: string | undefined;

/**
 * A file of ours as the compiler makes it for production, for processes that tests start: one that compiles its sources itself, as
 * with tsx, takes three times the processor to start. All is compiled once for one state of the sources, into `dist/`, without asking
 * whether types hold: that is another check's.
 * @param source From the root of the repository: `src/cli/main.ts`.
 */
export function compiled(source: string): string {
  known ??= build();
  return join(known, source.replace(/\.ts$/, '.js'));
}

function build(): string {
  const home = join(root, 'dist', `tested-${stateOfSources()}`);
  if (existsSync(home)) return home;
  mkdirSync(dirname(home), { recursive: true });
  forget(dirname(home));
  const half = mkdtempSync(join(dirname(home), 'half-'));
  try {
    const compiler = join(root, 'node_modules', '.bin', 'tsc');
    run(compiler, ['-p', 'test/support/tsconfig.compiled.json', '--noCheck', '--outDir', half]);
    run(process.execPath, ['scripts/copy-assets.mjs', half]);
    // mkdtemp lets nobody else in, but some of what is started runs as another user.
    chmodSync(half, 0o755);
    renameSync(half, home);
  } catch (error) {
    rmSync(half, { recursive: true, force: true });
    // Another test process was quicker.
    if (!existsSync(home)) throw error;
  }
  return home;
}

function run(command: string, args: readonly string[]): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? ''}${stdout}${stderr}`);
}

function stateOfSources(): string {
  const hash = createHash('sha256');
  for (const folder of ['src', 'providers', 'test/support']) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || entry.name.endsWith('.test.ts')) continue;
      const file = join(entry.parentPath, entry.name);
      const { size, mtimeMs } = statSync(file);
      hash.update(`${file} ${size} ${mtimeMs}\n`);
    }
  }
  return hash.digest('hex').slice(0, 16);
}

/** What earlier states left behind; another run may be at work with one of today. */
function forget(folder: string): void {
  for (const name of readdirSync(folder)) {
    const old = join(folder, name);
    if (/^(tested|half)-/.test(name) && Date.now() - statSync(old).mtimeMs > DAY_MILLIS)
      rmSync(old, { recursive: true, force: true });
  }
}
