import { execFile, spawnSync } from 'node:child_process';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const model = 'protocol.pml';
/** Steps. A search that would go deeper says so, and does not count as complete. */
const MOST_DEEP = 10_000;

/** A missing tool is said aloud on a laptop and fails when `CI=true`. */
export function hasSpin(): boolean {
  const missing = [
    ['spin', '-V'],
    ['gcc', '--version'],
  ].filter(([tool = '', flag = '']) => spawnSync(tool, [flag]).status !== 0);
  if (missing.length === 0) return true;
  const says = `${missing.map(([tool]) => tool).join(' and ')} not found`;
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says}: the model of the protocol is not checked ***\n`);
  return false;
}

export interface Search {
  /** Macros of the model. */
  readonly defined?: Readonly<Record<string, number>>;
  /** The assertions at every moment, or the formula about all that follows. */
  readonly looksFor: 'safety' | 'liveness';
  /** Processes may stand still for ever. */
  readonly mayHang?: boolean;
  /** Of the compiler: what ends soon is not worth optimising. */
  readonly optimised?: boolean;
}

export interface Found {
  readonly states: number;
  /** The first assertion or formula that does not hold, with its trace; undefined when all hold. */
  readonly broken: { readonly what: string; readonly trace: string } | undefined;
  /** Whether all states were looked at, each whole. */
  readonly complete: boolean;
  /** What no path comes to, as SPIN reports it. */
  readonly unreached: readonly string[];
}

export async function search({ defined = {}, looksFor, mayHang, optimised }: Search): Promise<Found> {
  const cwd = await mkdtemp(join(tmpdir(), 'mayfly-model-'));
  try {
    await copyFile(fileURLToPath(new URL(model, import.meta.url)), join(cwd, model));
    const macros = Object.entries(defined).map(([name, value]) => `-D${name}=${value}`);
    await run('spin', [...macros, '-a', model], { cwd });
    const kind = looksFor === 'safety' ? ['-DSAFETY', '-DNOCLAIM'] : [];
    await run('gcc', ['-w', optimised === true ? '-O1' : '-O0', ...kind, '-o', 'pan', 'pan.c'], { cwd });
    const asked = [
      `-m${MOST_DEEP}`,
      '-w22',
      ...(looksFor === 'liveness' ? ['-a'] : []),
      ...(mayHang === true ? ['-E'] : []),
    ];
    const { stdout } = await run('./pan', asked, { cwd, maxBuffer: 1e8 });
    const what = /pan:\d+: (.*) \(at depth \d+\)/.exec(stdout)?.[1];
    const errors = Number(/errors: (\d+)/.exec(stdout)?.[1]);
    if (Number.isNaN(errors) || errors > 0 !== (what !== undefined)) throw new Error(`not understood: ${stdout}`);
    return {
      states: Number(/(\d+) states, stored/.exec(stdout)?.[1]),
      broken:
        what === undefined
          ? undefined
          : { what, trace: (await run('spin', [...macros, '-t', '-p', '-g', model], { cwd, maxBuffer: 1e8 })).stdout },
      complete:
        stdout.includes('Full statespace search') &&
        !/max search depth too small|Search not completed|Bit statespace|Hash-Compact/.test(stdout),
      unreached: stdout.split('\n').filter((line) => /protocol\.pml:\d+, state \d+/.test(line)),
    };
  } finally {
    await rm(cwd, { recursive: true, force: true });
  }
}
