import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { exampleBugs } from './example.ts';
import { plantedBugs } from './list.ts';
import { edited } from './plant.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));

test.each([...plantedBugs, ...exampleBugs].map((bug) => [bug.name, bug] as const))(
  '%s: still fits the source',
  (_name, { edits, suites }) => {
    const texts = new Map<string, string>();
    for (const edit of edits) {
      const text = texts.get(edit.file) ?? readFileSync(join(root, edit.file), 'utf8');
      texts.set(edit.file, edited(text, edit));
      expect(texts.get(edit.file)).not.toBe(text);
    }
    for (const suite of suites) expect(readFileSync(join(root, suite), 'utf8')).toMatch(/test\(|testProvider\(/);
  },
);

test('a bug that stands nowhere, or in two places, is said and not planted', () => {
  const edit = { file: 'a.ts', from: 'one', to: 'two' };
  expect(() => edited('nil', edit)).toThrow(/0 times/);
  expect(() => edited('one one', edit)).toThrow(/2 times/);
  expect(edited('a one b', { ...edit, to: '$&' })).toBe('a $& b');
});
