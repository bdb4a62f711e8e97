import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { Secret } from './secret.ts';

test('a secret prints as [secret] wherever it stands, and opens only when asked', () => {
  const deep = { a: { b: { c: [new Secret('hunter2')] } } };
  const error = new Error('failed', { cause: deep });
  for (const text of [
    JSON.stringify(deep),
    inspect(deep, { depth: 9 }),
    String(new Secret('hunter2')),
    inspect(error, { depth: 9 }),
  ]) {
    expect(text).toContain('[secret]');
    expect(text).not.toContain('hunter2');
  }
  expect(new Secret('hunter2').reveal()).toBe('hunter2');
});
