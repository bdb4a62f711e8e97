import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { z } from 'zod';

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export function plus(a: Counts, b: Counts): Counts {
  return { passed: a.passed + b.passed, failed: a.failed + b.failed, skipped: a.skipped + b.skipped };
}

/** The last line of `npm test`; programs read it. */
export function sayCounts({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** What we read of vitest's JSON report. */
const reportSchema = z.object({
  testResults: z.array(
    z.object({
      name: z.string(),
      status: z.string(),
      message: z.string().optional(),
      assertionResults: z.array(z.object({ status: z.string(), fullName: z.string() })),
    }),
  ),
});

/**
 * The numbers of a run, and its failures and skips said aloud, where a reader who scrolled past them looks last.
 * Whatever failed without a failed test (a file that does not load, a hook, an unhandled error, no report at all)
 * counts as one failure, so that a run that vitest calls bad never looks good.
 */
export function readReport(
  file: string,
  vitestOk: boolean,
  root: string,
  say: (line: string) => void = console.log,
): Counts {
  let report: z.infer<typeof reportSchema>;
  try {
    report = reportSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
  } catch (error) {
    say(`FAILED vitest left no report: ${String(error)}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
  let [passed, failed, skipped] = [0, 0, 0];
  for (const suite of report.testResults) {
    const name = relative(root, suite.name);
    const of = (...states: string[]) => suite.assertionResults.filter(({ status }) => states.includes(status));
    const bad = of('failed');
    const good = of('passed');
    const idle = suite.assertionResults.length - bad.length - good.length;
    passed += good.length;
    failed += bad.length;
    skipped += idle;
    for (const test of bad) say(`FAILED ${name}: ${test.fullName}`);
    if (suite.status === 'failed' && bad.length === 0) {
      failed += 1;
      say(`FAILED ${name}: ${suite.message?.split('\n')[0] || 'a hook, or the file itself (see above)'}`);
    }
    if (idle > 0) say(`SKIPPED ${name}: ${idle} of ${suite.assertionResults.length} tests`);
  }
  if (!vitestOk && failed === 0) {
    failed = 1;
    say('FAILED vitest: an error outside of any test (see above)');
  }
  return { passed, failed, skipped };
}
