import { expect, test } from 'vitest';
import { identifier, literal } from './quote.ts';

test.each([
  ['plain', '"plain"'],
  ['Mixed Case', '"Mixed Case"'],
  ['a"b', '"a""b"'],
  ['"; DROP TABLE x; --', '"""; DROP TABLE x; --"'],
])('the identifier %j is %s', (name, quoted) => {
  expect(identifier(name)).toBe(quoted);
});

test.each(['', 'a\0b', 'x'.repeat(64), 'ä'.repeat(32)])('what no identifier can be is refused: %j', (name) => {
  expect(() => identifier(name)).toThrow(TypeError);
});

test.each([
  ['plain', `'plain'`],
  [`it's`, `'it''s'`],
  ['a\\b', `E'a\\\\b'`],
  [`\\'; --`, `E'\\\\''; --'`],
])('the literal %j is %s', (text, quoted) => {
  expect(literal(text)).toBe(quoted);
});
