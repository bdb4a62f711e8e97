import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { edited } from '../contract/planted/plant.ts';
import { plantedBugs } from './planted.ts';
import { cases } from './table.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

test.each(plantedBugs)('the bug “$name” can be planted, and a case is there to notice it', (bug) => {
  for (const edit of bug.edits) expect(edited(readFileSync(join(root, edit.file), 'utf8'), edit)).toContain(edit.to);
  expect(cases.map(({ name }) => name)).toContain(bug.cases);
});
