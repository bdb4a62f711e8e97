import type { CaseResult, Suite, VitestRun } from './vitest.ts';

export interface Row {
  readonly case: string;
  /** `<mode> <version>`: `definer 18`. */
  readonly backend: string;
  readonly ok: boolean;
  /** Processes that outlived the suites of this backend; of a crash, what stands in target and store and must not. */
  readonly left_behind?: number;
  /** How long after it was due an end was seen, where the case measures it. */
  readonly late_ms?: number;
  /** What else there is to say: `not built`, or why it failed. */
  readonly says?: string;
}

/** A case that does not exist on this version or in this mode: an honest blank, neither ok nor failed. */
export interface Blank {
  readonly case: string;
  readonly backend: string;
}

export interface Rows {
  readonly rows: Row[];
  readonly blanks: Blank[];
}

/** The name of a test without version and mode, so that the same case is one line of the table. */
export function caseName({ ancestorTitles, title }: Pick<CaseResult, 'ancestorTitles' | 'title'>): string {
  const plain = ancestorTitles.map((name) =>
    name
      .replace(/^mode '?[a-z]+\b'?/, '')
      .replace(/,? ?(on |of |to )?PostgreSQL \d\d,? ?/, ' ')
      .replace(/^ *: /, '')
      .trim(),
  );
  return [...plain.filter((name) => name !== ''), title].join(': ');
}

/** The mode that a suite of several names in its title (`mode pool on PostgreSQL 18`): another's result is not this backend's. */
function isOthers({ ancestorTitles }: CaseResult, backend: string): boolean {
  const named = ancestorTitles.map((title) => /^mode '?([a-z]+)\b/.exec(title)?.[1]).find((mode) => mode !== undefined);
  return named !== undefined && !backend.startsWith(`${named} `);
}

/** Every test is a case; what failed without a failed test, and whatever was left behind, is one too. */
export function rowsOf(run: VitestRun, backend: string): Rows {
  const rows: Row[] = [];
  const blanks: Blank[] = [];
  const names = new Set<string>();
  for (const suite of run.suites) {
    for (const result of suite.assertionResults.filter((each) => !isOthers(each, backend))) {
      const name = unique(caseName(result), names);
      if (result.status === 'passed' || result.status === 'failed') {
        const late = result.meta?.late_ms;
        const left = result.meta?.left_behind;
        const why = result.failureMessages?.[0]?.split('\n')[0];
        rows.push({
          ...{ case: name, backend, ok: result.status === 'passed' },
          ...(late === undefined ? {} : { late_ms: late }),
          ...(left === undefined ? {} : { left_behind: left }),
          ...(why === undefined ? {} : { says: why }),
        });
      } else {
        blanks.push({ case: name, backend });
      }
    }
    const unsaid = failedOutside(suite);
    if (unsaid !== null) rows.push({ case: unique('the suite runs', names), backend, ok: false, says: unsaid });
  }
  if (!run.ok && rows.every(({ ok }) => ok)) {
    rows.push({ case: 'no error outside of any test', backend, ok: false, says: run.output.slice(-500) });
  }
  const left = run.leftBehind.length;
  const says = run.leftBehind.join('; ');
  rows.push({
    ...{ case: 'no process is left behind', backend, ok: left === 0, left_behind: left },
    ...(left === 0 ? {} : { says }),
  });
  return { rows, blanks };
}

function failedOutside(suite: Suite): string | null {
  const told = suite.assertionResults.some(({ status }) => status === 'failed');
  return suite.status === 'failed' && !told ? `${suite.name}: ${suite.message ?? 'a hook, or the file itself'}` : null;
}

function unique(name: string, names: Set<string>): string {
  let candidate = name;
  for (let count = 2; names.has(candidate); count += 1) candidate = `${name} (${count})`;
  names.add(candidate);
  return candidate;
}

/** Case × backend, as Markdown. */
export function table({ rows, blanks }: Rows, backends: readonly string[]): string {
  const cases = [...new Set([...rows, ...blanks].map((row) => row.case))];
  const cell = (name: string, backend: string): string => {
    const row = rows.find((each) => each.case === name && each.backend === backend);
    if (row === undefined) return '';
    if (row.ok) return row.late_ms === undefined ? 'yes' : `yes, ${row.late_ms.toFixed(0)} ms`;
    return row.says === 'not built' ? 'not built' : '**NO**';
  };
  const lines = cases.map((name) => [name.replaceAll('|', '\\|'), ...backends.map((backend) => cell(name, backend))]);
  const header = ['case', ...backends];
  return [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
