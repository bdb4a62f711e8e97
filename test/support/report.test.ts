import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { type Counts, plus, readReport, sayCounts } from './report.ts';

const folder = mkdtempSync(join(tmpdir(), 'mayfly-report-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Vitest's own shape, with these states of tests in one file. */
const suite = (status: string, states: readonly string[], message = '') => ({
  name: join(folder, 'a.test.ts'),
  status,
  message,
  assertionResults: states.map((state, index) => ({ status: state, fullName: `test ${index}` })),
});

function read(report: unknown, vitestOk: boolean): { counts: Counts; said: string[] } {
  const file = join(folder, 'report.json');
  writeFileSync(file, typeof report === 'string' ? report : JSON.stringify(report));
  const said: string[] = [];
  const counts = readReport(file, vitestOk, folder, (line) => said.push(line));
  return { counts, said };
}

test('counts what passed, failed and was skipped, and says the last two aloud', () => {
  const report = { testResults: [suite('failed', ['passed', 'failed', 'skipped', 'todo', 'pending'])] };
  expect(read(report, false)).toEqual({
    counts: { passed: 1, failed: 1, skipped: 3 },
    said: ['FAILED a.test.ts: test 1', 'SKIPPED a.test.ts: 3 of 5 tests'],
  });
});

test('counts a file that does not load, or whose hook fails, as a failure', () => {
  const report = { testResults: [suite('failed', [], 'Cannot find module\nat x'), suite('failed', ['skipped'])] };
  expect(read(report, false)).toMatchObject({ counts: { passed: 0, failed: 2, skipped: 1 } });
});

test('believes vitest when it fails without saying where', () => {
  expect(read({ testResults: [suite('passed', ['passed'])] }, false).counts).toEqual({
    passed: 1,
    failed: 1,
    skipped: 0,
  });
  expect(read({ testResults: [suite('passed', ['passed'])] }, true).counts).toEqual({
    passed: 1,
    failed: 0,
    skipped: 0,
  });
});

test('takes a report that is missing or cut short for a failure', () => {
  expect(read('{"testResults": [', true).counts.failed).toBe(1);
  rmSync(join(folder, 'report.json'));
  expect(readReport(join(folder, 'report.json'), true, folder, () => {}).failed).toBe(1);
});

test('ends with the line that programs read', () => {
  const sum = plus({ passed: 1, failed: 0, skipped: 2 }, { passed: 10, failed: 3, skipped: 0 });
  expect(sayCounts(sum)).toBe('11 passed, 3 failed, 2 skipped');
});
