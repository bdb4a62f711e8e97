import { expect, test } from 'vitest';
import { type Ceiling, narrowed } from './task.ts';

const wide: Ceiling = { entitlements: ['a/a', 'a/b'], params: { tenant: 'acme' }, maxTtlSeconds: 300 };

test('what is narrowed keeps the entitlements that both have, in its own order', () => {
  const { entitlements } = narrowed({ ...wide, entitlements: ['c/c', 'a/b', 'a/a'] }, wide);
  expect(entitlements).toEqual(['a/b', 'a/a']);
});

test('it has the other one’s params, and never its own', () => {
  const own = { tenant: 'evil', region: 'eu' };
  expect(narrowed({ ...wide, params: own }, wide).params).toEqual({ tenant: 'acme' });
  expect(narrowed(wide, { ...wide, params: {} }).params).toEqual({});
});

test.each([
  [60, 300, 60],
  [300, 60, 60],
  [null, 60, 60],
  [60, null, 60],
  [null, null, null],
])('its longest life is the shorter of both: %s and %s', (own, by, least) => {
  expect(narrowed({ ...wide, maxTtlSeconds: own }, { ...wide, maxTtlSeconds: by }).maxTtlSeconds).toBe(least);
});
