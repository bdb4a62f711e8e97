import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { settingsTable } from '../src/cli/config.ts';

test('the README’s table of settings is the schema’s', () => {
  const readme = readFileSync(fileURLToPath(new URL('../README.md', import.meta.url)), 'utf8');
  const [, table = ''] = /<!-- settings[^\n]*-->\n([\s\S]*?)\n<!-- \/settings -->/.exec(readme) ?? [];
  expect(table).toBe(settingsTable());
});
