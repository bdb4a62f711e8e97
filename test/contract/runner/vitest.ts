import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { Descendants } from '../../support/leftovers.ts';

const reportSchema = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string().optional(),
      assertionResults: z.array(
        z.object({
          status: z.string(),
          title: z.string(),
          ancestorTitles: z.array(z.string()),
          failureMessages: z.array(z.string()).nullish(),
          /** A case may say how late it was seen to be over, and how much was left behind: `task.meta.late_ms`. */
          meta: z
            .object({
              late_ms: z.number().optional(),
              left_behind: z.number().optional(),
              /** Why it has nothing to show here; then it was skipped. */
              not_applicable: z.string().optional(),
            })
            .optional(),
        }),
      ),
    }),
  ),
});

export type Suite = z.infer<typeof reportSchema>['testResults'][number];
export type CaseResult = Suite['assertionResults'][number];

export interface VitestRun {
  readonly suites: readonly Suite[];
  /** Vitest's own verdict: also false for errors outside of any test. */
  readonly ok: boolean;
  /** Command lines of processes that outlived it, and were ended. */
  readonly leftBehind: readonly string[];
  /** What it printed: empty where it was shown. */
  readonly output: string;
}

/**
 * Runs these suites of the tree `root` in a process of its own, and reads its JSON report.
 * @param pattern Only tests whose full name matches (`vitest -t`).
 * @throws Error when there is no report: then nothing is known of any case.
 */
export async function runVitest(
  root: string,
  files: readonly string[],
  env: Readonly<Record<string, string>>,
  options: { readonly pattern?: string; readonly live?: boolean } = {},
): Promise<VitestRun> {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-contract-'));
  try {
    const report = join(folder, 'report.json');
    const args = ['run', '--reporter=json', `--outputFile.json=${report}`, '--reporter=default'];
    if (options.pattern !== undefined) args.push('-t', options.pattern);
    const child = spawn(join(root, 'node_modules', '.bin', 'vitest'), [...args, ...files], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', options.live === true ? 'inherit' : 'pipe', options.live === true ? 'inherit' : 'pipe'],
    });
    const watched = child.pid === undefined ? undefined : new Descendants(child.pid);
    let output = '';
    child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr?.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const ok = await new Promise<boolean>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code) => resolve(code === 0));
    });
    const leftBehind = ((await watched?.end(5000)) ?? []).map(({ command }) => command);
    let text: string;
    try {
      text = readFileSync(report, 'utf8');
    } catch {
      throw new Error(`vitest left no report:\n${output.slice(-4000)}`);
    }
    return { suites: reportSchema.parse(JSON.parse(text)).testResults, ok, leftBehind, output };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
