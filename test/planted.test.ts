import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { edited } from './contract/planted/plant.ts';
import { plantedBugs } from './crash/planted.ts';
import { plantedBugs as ofFaults } from './faults/planted.ts';
import { casesOf } from './faults/table.ts';
import { cases as crashes } from './crash/table.ts';

const names = [...crashes, ...casesOf('postgres')].map(({ name }) => name);

test.each([...plantedBugs, ...ofFaults].map((bug) => [bug.name, bug] as const))(
  'planted: %s: still fits the source, and a case',
  (_name, { edits, cases }) => {
    for (const edit of edits) {
      const text = readFileSync(fileURLToPath(new URL(`../${edit.file}`, import.meta.url)), 'utf8');
      expect(edited(text, edit)).not.toBe(text);
    }
    expect(names.filter((name) => name.includes(cases))).toHaveLength(1);
  },
);
