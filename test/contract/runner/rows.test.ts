import { expect, test } from 'vitest';
import { caseName, rowsOf, table } from './rows.ts';

const passed = { status: 'passed', title: 'ends', ancestorTitles: ['a life on PostgreSQL 18'], meta: { late_ms: 12 } };
const suite = { name: 'a.test.ts', status: 'passed', assertionResults: [passed] };
const run = { suites: [suite], ok: true, leftBehind: [], output: '' };

test('a case has one name on every version', () => {
  const on = (version: number) =>
    caseName({ ancestorTitles: [`PostgreSQL ${version} over a network`], title: 'hangs' });
  expect(on(14)).toBe('over a network: hangs');
  expect(on(14)).toBe(on(18));
  expect(caseName({ ancestorTitles: ['TLS to PostgreSQL 15'], title: 'holds' })).toBe('TLS: holds');
  expect(caseName({ ancestorTitles: ['making PostgreSQL 15 ready, and checking that it is'], title: 'is' })).toBe(
    'making ready, and checking that it is: is',
  );
});

test('what passed is ok, what failed says why, and what was skipped is a blank and not ok', () => {
  const failed = { ...passed, status: 'failed', title: 'fails', failureMessages: ['Error: no\n at'] };
  const skipped = { ...passed, status: 'skipped', title: 'since 16' };
  const { rows, blanks } = rowsOf(
    { ...run, suites: [{ ...suite, assertionResults: [passed, failed, skipped] }] },
    'definer 18',
  );
  expect(rows).toMatchObject([
    { case: 'a life: ends', backend: 'definer 18', ok: true, late_ms: 12 },
    { case: 'a life: fails', ok: false, says: 'Error: no' },
    { case: 'no process is left behind', ok: true, left_behind: 0 },
  ]);
  expect(blanks).toEqual([{ case: 'a life: since 16', backend: 'definer 18' }]);
  expect(table({ rows, blanks }, ['definer 18']).split('\n')).toEqual([
    '| case | definer 18 |',
    '| --- | --- |',
    '| a life: ends | yes, 12 ms |',
    '| a life: fails | **NO** |',
    '| no process is left behind | yes |',
    '| a life: since 16 |  |',
  ]);
});

test('a suite of several modes counts for the mode that was asked for, by the same names', () => {
  const of = (mode: string) => ({ ...passed, ancestorTitles: [`mode '${mode}' on PostgreSQL 18`, 'a life'] });
  const both = {
    ...run,
    suites: [{ ...suite, assertionResults: [of('createrole'), { ...of('pool'), status: 'failed' }] }],
  };
  const cases = rowsOf(both, 'pool 18').rows.filter(({ left_behind: left }) => left === undefined);
  expect(cases).toMatchObject([{ case: 'a life: ends', ok: false }]);
});

test('what vitest calls bad never looks good, and processes left behind are counted', () => {
  const bad = (changes: object) => rowsOf({ ...run, ...changes }, 'pool 14').rows.filter(({ ok }) => !ok);
  expect(bad({ ok: false, output: 'unhandled' })).toMatchObject([
    { case: 'no error outside of any test', says: 'unhandled' },
  ]);
  expect(bad({ suites: [{ ...suite, status: 'failed', message: 'boom' }] })).toMatchObject([
    { case: 'the suite runs' },
  ]);
  expect(bad({ leftBehind: ['postgres', 'sh'] })).toMatchObject([{ left_behind: 2, says: 'postgres; sh' }]);
});
