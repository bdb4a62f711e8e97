import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { exampleFiles } from './contract/example-files.ts';
import { casesOf } from './contract/provider/cases/index.ts';
import { readmeMarks } from './contract/runner/providers.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

test('the example that is tested is the one in docs/writing-a-provider.md', () => {
  const files = exampleFiles();
  expect([...files.keys()].sort()).toEqual(['canary.ts', 'contract.test.ts', 'driver.ts', 'provider.ts', 'redis.ts']);
  for (const [name, text] of files) {
    if (name === 'contract.test.ts') continue;
    const here = text
      .replaceAll("'mayfly/provider'", "'../../../src/provider.ts'")
      .replaceAll("'mayfly/provider-contract'", "'../provider/index.ts'");
    expect(readFileSync(join(root, 'test', 'contract', 'example', name), 'utf8')).toBe(here);
  }
});

const [begin, end] = readmeMarks;
const tables = readdirSync(join(root, 'providers'), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => [name, readFileSync(join(root, 'providers', name, 'README.md'), 'utf8')] as const);

test.each(tables)('the README of %s has a line for every case of the suite, and no failure', (_name, text) => {
  const table = text.slice(text.indexOf(begin) + begin.length, text.indexOf(end));
  const lines = table.split('\n').filter((line) => line.startsWith('| '));
  const names = lines.slice(2).map((line) => line.split(' | ')[0]?.slice(2));
  expect(names).toEqual(casesOf.map(({ name }) => name));
  expect(table).not.toContain('**NO**');
});
