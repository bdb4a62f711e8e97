import { expect, test } from 'vitest';
import { casesOf } from '../provider/cases/index.ts';
import { providerTable, verdictsOf } from './providers.ts';

const [first, second] = [casesOf[0]?.name ?? '', casesOf[1]?.name ?? ''];
const passed = { status: 'passed', title: second, ancestorTitles: ['vault 2.4'] };
const run = { ok: true, leftBehind: [], output: '' };
const suite = { name: 'provider-vault.test.ts', status: 'passed' };

test('a case that passed, one that is not applicable and one that was only skipped are three things', () => {
  const results = [
    { ...passed, meta: { late_ms: 12 } },
    { ...passed, title: first, status: 'skipped', meta: { not_applicable: 'it has none' } },
    { ...passed, title: 'another', status: 'skipped' },
  ];
  const verdicts = verdictsOf({ ...run, suites: [{ ...suite, assertionResults: results }] }, 'vault');
  expect(verdicts).toEqual({
    rows: [
      { case: second, backend: 'vault 2.4', ok: true, late_ms: 12 },
      { case: 'another', backend: 'vault 2.4', ok: false, says: 'skipped' },
      { case: 'no process is left behind', backend: 'vault 2.4', ok: true, left_behind: 0 },
    ],
    blanks: [{ case: first, backend: 'vault 2.4', says: 'it has none' }],
  });
  // In the order of the suite, whatever came first.
  expect(providerTable(verdicts, ['vault 2.4']).split('\n')).toEqual([
    '| case | vault 2.4 |',
    '| --- | --- |',
    `| ${first} | – 1 |`,
    `| ${second} | yes, 12 ms |`,
    '| another | **NO** |',
    '| no process is left behind | yes |',
    '',
    'Not applicable (–):',
    '',
    '1. it has none',
  ]);
});

test('a suite that ran nothing has not passed', () => {
  expect(verdictsOf({ ...run, ok: false, suites: [], output: 'no such file' }, 'vault').rows).toEqual([
    { case: 'the suite runs', backend: 'vault', ok: false, says: 'no such file' },
  ]);
});
