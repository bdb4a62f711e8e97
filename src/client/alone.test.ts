import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

test('the client brings nothing along but itself and jose', () => {
  const folder = new URL('.', import.meta.url);
  const imports = readdirSync(folder)
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
    .flatMap((file) => [
      ...readFileSync(new URL(file, folder), 'utf8').matchAll(/^(import|export)\b[^;]*? from '(.+?)';/gm),
    ])
    .map(([, , from]) => from);
  expect(imports.length).toBeGreaterThan(5);
  expect(new Set(imports.filter((from) => !from?.startsWith('./')))).toEqual(new Set(['jose', 'node:crypto']));
});
