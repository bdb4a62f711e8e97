import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { casesOf } from '../provider/cases/index.ts';
import type { Blank, Row } from './rows.ts';
import { type CaseResult, runVitest, type VitestRun } from './vitest.ts';

/** What the provider suite came to on one system: `postgres 18`, `redis-acl`. */
export interface Verdicts {
  readonly rows: Row[];
  /** Cases that are not applicable, and why. */
  readonly blanks: (Blank & { readonly says: string })[];
}

/** The files of the provider suite, one for each provider: `provider-<name>.test.ts`. Paths from `root`. */
export function providerSuites(root: string): readonly string[] {
  const folder = join('test', 'contract');
  return readdirSync(join(root, folder))
    .filter((file) => /^provider-.*\.test\.ts$/.test(file))
    .map((file) => join(folder, file))
    .sort();
}

/**
 * Runs one of them: each `describe` in it is a backend, each test in that a case of it.
 * @param bounded The mechanism of one entitlement each, as `npm test` does.
 */
export async function runProviders(root: string, suite: string, bounded: boolean): Promise<Verdicts> {
  const env = { MAYFLY_TEST_EVERY_BACKEND: '1', ...(bounded && { MAYFLY_TEST_ONE_ENTITLEMENT: '1' }) };
  const run = await runVitest(root, ['--project', 'system', suite], env);
  return verdictsOf(run, /provider-(.*)\.test\.ts$/.exec(suite)?.[1] ?? suite);
}

/** @param name Of what ran, where no case says more. */
export function verdictsOf(run: VitestRun, name: string): Verdicts {
  const results = run.suites.flatMap(({ assertionResults }) => assertionResults);
  const rows: Row[] = [];
  const blanks: Verdicts['blanks'] = [];
  for (const result of results) {
    const { status, title, meta } = result;
    const at = { case: title, backend: backendOf(result) };
    const why = meta?.not_applicable;
    if (why !== undefined) blanks.push({ ...at, says: why });
    else if (status === 'passed') rows.push({ ...at, ok: true, ...measuredBy(result) });
    // A skip without a reason has shown nothing.
    else rows.push({ ...at, ok: false, says: result.failureMessages?.[0]?.split('\n')[0] ?? status });
  }
  const backends = [...new Set(rows.map(({ backend }) => backend))];
  if (results.length === 0 || (!run.ok && rows.every(({ ok }) => ok)))
    rows.push({ case: 'the suite runs', backend: name, ok: false, says: run.output.slice(-500) });
  const left = run.leftBehind.length;
  for (const backend of backends)
    rows.push({ case: 'no process is left behind', backend, ok: left === 0, left_behind: left });
  return { rows, blanks };
}

function backendOf({ ancestorTitles }: CaseResult): string {
  return ancestorTitles.filter((title) => title !== '').join(' ');
}

function measuredBy({ meta }: CaseResult): Partial<Row> {
  return {
    ...(meta?.late_ms === undefined ? {} : { late_ms: meta.late_ms }),
    ...(meta?.left_behind === undefined ? {} : { left_behind: meta.left_behind }),
  };
}

/** Case × backend, as Markdown; what is not applicable says why below it. */
export function providerTable({ rows, blanks }: Verdicts, backends: readonly string[]): string {
  const reasons: string[] = [];
  const note = (says: string): string => {
    if (!reasons.includes(says)) reasons.push(says);
    return `– ${reasons.indexOf(says) + 1}`;
  };
  const cell = (name: string, backend: string): string => {
    const blank = blanks.find((each) => each.case === name && each.backend === backend);
    if (blank !== undefined) return note(blank.says);
    const row = rows.find((each) => each.case === name && each.backend === backend);
    if (row === undefined) return '';
    if (!row.ok) return '**NO**';
    return row.late_ms === undefined ? 'yes' : `yes, ${row.late_ms.toFixed(0)} ms`;
  };
  const ran = [...rows, ...blanks].filter(({ backend }) => backends.includes(backend)).map((row) => row.case);
  const known = casesOf.map((each) => each.name).filter((each) => ran.includes(each));
  const cases = [...known, ...new Set(ran.filter((each) => !known.includes(each)))];
  const lines = cases.map((name) => [name.replaceAll('|', '\\|'), ...backends.map((backend) => cell(name, backend))]);
  const header = ['case', ...backends];
  const table = [header, header.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  const notes = reasons.map((says, index) => `${index + 1}. ${says}`).join('\n');
  return notes === '' ? table : `${table}\n\nNot applicable (–):\n\n${notes}`;
}

export const readmeMarks = ['<!-- provider-contract -->', '<!-- /provider-contract -->'] as const;

/** Puts each provider's part into its README, between the marks. @returns the files that were written. */
export function writeReadmes(root: string, all: Verdicts, bounded: boolean): readonly string[] {
  const says = bounded ? '\nThe cases of crashes, races, faults and restarts were played with one entitlement.\n' : '';
  const backends = [...new Set(all.rows.map(({ backend }) => backend))];
  const ofCases = { ...all, rows: all.rows.filter((row) => casesOf.some((each) => each.name === row.case)) };
  return readdirSync(join(root, 'providers'), { withFileTypes: true }).flatMap(({ name }) => {
    const own = backends.filter((backend) => backend.split(' ')[0] === name);
    const path = join(root, 'providers', name, 'README.md');
    const [begin, end] = readmeMarks;
    const text = readFileSync(path, 'utf8');
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (own.length === 0 || from < 0 || to < from) return [];
    writeFileSync(path, `${text.slice(0, from)}${begin}\n${providerTable(ofCases, own)}\n${says}${text.slice(to)}`);
    return [path];
  });
}
