import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Descendants } from './support/leftovers.ts';
import { type Counts, plus, readReport, sayCounts } from './support/report.ts';

/**
 * `npm test`: all suites, and every `check:*` script of package.json beside them, since servers leave the cores idle now and then.
 * `--checks` leaves the suites out; any other arguments go to vitest, and the checks are left out. The last line is `N passed, N failed, N skipped`,
 * where each check counts as one; the exit code is 0 only when nothing failed.
 */
const root = fileURLToPath(new URL('..', import.meta.url));
const running = new Set<ChildProcess>();
/** Said again at the end, where the suites' own stand. */
const failures: string[] = [];
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    process.exitCode = 1;
    for (const child of running) child.kill(signal);
  });
}

function secondsSince(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(1);
}

interface Ended {
  readonly ok: boolean;
  readonly output: string;
}

interface Options {
  readonly env?: NodeJS.ProcessEnv;
  /** Shown as it comes instead of being kept. */
  readonly live?: boolean;
  onStart?(pid: number): void;
}

async function run(command: string, args: readonly string[], options: Options = {}): Promise<Ended> {
  const env = { ...process.env, ...options.env };
  env['PATH'] = `${join(root, 'node_modules', '.bin')}${delimiter}${env['PATH'] ?? ''}`;
  const stdio = options.live === true ? 'inherit' : (['ignore', 'pipe', 'pipe'] as const);
  const child = spawn(command, args, {
    cwd: root,
    env,
    stdio: typeof stdio === 'string' ? ['ignore', stdio, stdio] : [...stdio],
  });
  running.add(child);
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
  if (child.pid !== undefined) options.onStart?.(child.pid);
  const ok = await new Promise<boolean>((resolve) => {
    child.on('error', (error) => {
      output += String(error);
      resolve(false);
    });
    child.on('close', (code) => resolve(code === 0));
  });
  running.delete(child);
  return { ok, output };
}

function checkScripts(): [name: string, command: string][] {
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return Object.entries(scripts)
    .filter(([name]) => name.startsWith('check:'))
    .map(([name, command]) => [name.slice('check:'.length), command]);
}

/** @param atOnce More than one only where nothing else wants the cores. */
async function runChecks(atOnce: number): Promise<Counts> {
  const waiting = checkScripts();
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const worker = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [name, command] = next;
      const since = performance.now();
      const { ok, output } = await run('/bin/sh', ['-c', command]);
      console.log(`${ok ? 'ok    ' : 'FAILED'} ${name} (${secondsSince(since)} s)`);
      if (!ok) console.log(output.trimEnd());
      counts[ok ? 'passed' : 'failed'] += 1;
      if (!ok) failures.push(`FAILED check ${name} (its output stands above)`);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  return counts;
}

async function runSuites(args: readonly string[]): Promise<Counts> {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-test-report-'));
  try {
    const file = join(folder, 'report.json');
    let watched: Descendants | undefined;
    const reporters = [
      '--reporter=default',
      '--reporter=./test/support/slowest.ts',
      '--reporter=json',
      `--outputFile.json=${file}`,
    ];
    const since = performance.now();
    const { ok } = await run('vitest', ['run', ...reporters, ...args], {
      live: true,
      onStart: (pid) => {
        watched = new Descendants(pid);
      },
    });
    console.log(`suites (${secondsSince(since)} s)`);
    const left = (await watched?.end(5000)) ?? [];
    for (const { pid, command } of left) console.log(`LEFT BEHIND by the suites, and killed: ${pid} ${command}`);
    const nothingLeft: Counts = { passed: left.length === 0 ? 1 : 0, failed: left.length === 0 ? 0 : 1, skipped: 0 };
    return plus(readReport(file, ok, root), nothingLeft);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const args = process.argv.slice(2);
const onlyChecks = args.includes('--checks');
const began = performance.now();
const none: Counts = { passed: 0, failed: 0, skipped: 0 };
const parts = await Promise.all([
  onlyChecks || args.length === 0 ? runChecks(onlyChecks ? 2 : 1) : none,
  onlyChecks ? none : runSuites(args),
]);
const counts = parts.reduce(plus);
for (const failure of failures) console.log(failure);
if (counts.failed > 0) process.exitCode = 1;
console.log(`all of it (${secondsSince(began)} s)`);
console.log(sayCounts(counts));
