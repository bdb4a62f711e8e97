import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { MayflyError } from '../domain/errors.ts';
import { MAX_JSON_DEPTH, parseStrictJson } from './strict-json.ts';

function refusalOf(source: string): MayflyError {
  try {
    parseStrictJson(source);
  } catch (error) {
    if (error instanceof MayflyError) return error;
    throw error;
  }
  throw new Error(`accepted: ${source}`);
}

function codeOf(source: string): string {
  try {
    parseStrictJson(source);
    return 'accepted';
  } catch {
    return refusalOf(source).code;
  }
}

/** Each character as itself or as an escape: the same text for every reader. */
const escaped = (text: string, escapes: readonly boolean[]): string => {
  const units = Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));
  const plain = units.every((unit) => unit >= 0x20 && unit < 0x7f && unit !== 0x22 && unit !== 0x5c);
  return `"${units
    .map((unit, at) =>
      !plain || escapes[at % Math.max(1, escapes.length)] === true
        ? `\\u${unit.toString(16).padStart(4, '0')}`
        : String.fromCharCode(unit),
    )
    .join('')}"`;
};

const blank = fc.constantFrom('', ' ', '\n', '\t \r');
const text = fc.string({ unit: 'binary', maxLength: 8 }).filter((value) => !value.includes('\0'));
const memberName = fc.oneof(fc.constantFrom('a', 'b', '__proto__', '"', '\\', '{', ':,'), text);
const literal = (value: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.tuple(value, fc.array(fc.boolean(), { maxLength: 3 })).map(([string, escapes]) => escaped(string, escapes));

/** Valid JSON text, made member by member so that a name may come twice. */
const { document } = fc.letrec<{ document: string; scalar: string; list: string; object: string }>((tie) => ({
  document: fc.oneof({ depthSize: 'small', withCrossShrink: true }, tie('scalar'), tie('list'), tie('object')),
  scalar: fc.oneof(literal(text), fc.json({ maxDepth: 0 }), fc.constantFrom('-0', '1e400', '1E-2', 'null')),
  list: fc
    .tuple(blank, fc.array(tie('document'), { maxLength: 4 }))
    .map(([gap, items]) => `[${gap}${items.join(`${gap},${gap}`)}${gap}]`),
  object: fc
    .tuple(blank, fc.array(fc.tuple(literal(memberName), tie('document')), { maxLength: 4 }))
    .map(
      ([gap, members]) =>
        `{${gap}${members.map(([name, value]) => `${name}${gap}:${gap}${value}`).join(`,${gap}`)}${gap}}`,
    ),
}));

/** An oracle that shares nothing with the scanner: every colon outside a string is a member, and one that got lost was a duplicate. */
function losesMembers(source: string): boolean {
  const written = source.replaceAll(/"(?:[^"\\]|\\.)*"/g, '""').split(':').length - 1;
  return written !== countMembers(JSON.parse(source));
}

function countMembers(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  const inner = Object.values(value).reduce<number>((sum, item) => sum + countMembers(item), 0);
  return inner + (Array.isArray(value) ? 0 : Object.keys(value).length);
}

function isJson(source: string): boolean {
  try {
    JSON.parse(source);
    return true;
  } catch {
    return false;
  }
}

describe('parseStrictJson', () => {
  it('agrees with JSON.parse on valid JSON in which no name comes twice, and refuses exactly the rest', () => {
    const seen = { kept: 0, refused: 0 };
    fc.assert(
      fc.property(document, (source) => {
        const duplicates = losesMembers(source);
        seen[duplicates ? 'refused' : 'kept']++;
        const expected: unknown = duplicates ? 'duplicate_member' : JSON.parse(source);
        expect(duplicates ? codeOf(source) : parseStrictJson(source)).toStrictEqual(expected);
      }),
      { numRuns: 3000 },
    );
    expect(Math.min(seen.kept, seen.refused)).toBeGreaterThan(100);
  });

  it('refuses whatever JSON.parse refuses', () => {
    const broken = fc
      .tuple(document, fc.nat(), fc.constantFrom('', '"', '{', '}', ',', ':', '\\', '\u0001', '01', "'"))
      .map(([source, at, junk]) => {
        const cut = at % (source.length + 1);
        return source.slice(0, cut) + junk + source.slice(cut + 1);
      });
    fc.assert(
      fc.property(broken, (source) => {
        fc.pre(!isJson(source));
        expect(codeOf(source)).toBe('malformed_json');
      }),
      { numRuns: 2000 },
    );
  });

  it.each([
    ['a name twice', '{"a":1,"a":2}', 'duplicate_member'],
    ['a name twice with the same value', '{"a":1,"a":1}', 'duplicate_member'],
    ['a name twice, once escaped', String.raw`{"iss":1,"\u0069ss":2}`, 'duplicate_member'],
    ['a name twice deep inside', '[{"x":[{"a":{},"b":[],"a":0}]}]', 'duplicate_member'],
    ['a name twice around an object', '{"a":{"b":1},"b":{"a":1},"a":{}}', 'duplicate_member'],
    ['the empty name twice', '{"":1,"":2}', 'duplicate_member'],
    ['__proto__ twice', '{"__proto__":1,"__proto__":2}', 'duplicate_member'],
    ['a name that looks like the other one’s value', '{"a":"b","b":"a"}', 'accepted'],
    ['one name in two objects', '[{"a":1},{"a":1}]', 'accepted'],
    ['one name inside and outside', '{"a":{"a":{"a":1}}}', 'accepted'],
    ['strings twice in a list', '{"l":["a","a"],"m":"a"}', 'accepted'],
    ['brackets and colons in strings', String.raw`{"{":"}","\"a\":1,":"\\","\\":"[\",\""}`, 'accepted'],
    ['NUL in a string', String.raw`{"a":"x\u0000y"}`, 'malformed_json'],
    ['NUL in a name', String.raw`{"\u0000":1}`, 'malformed_json'],
    ['an escaped backslash before u0000', String.raw`{"a":"\\u0000"}`, 'accepted'],
    ['half a surrogate pair, escaped', String.raw`{"a":"\ud800"}`, 'malformed_json'],
    ['the other half, escaped', String.raw`["\udc00x"]`, 'malformed_json'],
    ['the halves in the wrong order', String.raw`["\udc00\ud800"]`, 'malformed_json'],
    ['half a surrogate pair, raw', '["\ud800"]', 'malformed_json'],
    ['a whole pair, escaped and raw', String.raw`["\ud83d\ude00", "😀"]`, 'accepted'],
    ['a byte order mark', '\ufeff{}', 'malformed_json'],
    ['nothing', '', 'malformed_json'],
    ['two values', '{}{}', 'malformed_json'],
    ['a trailing comma', '{"a":1,}', 'malformed_json'],
    ['NaN', '[NaN]', 'malformed_json'],
  ])('%s: %s → %s', (_name, source, code) => {
    expect(codeOf(source)).toBe(code);
  });

  it('takes nesting to its limit and no further, however deep', () => {
    const nested = (depth: number): string => '[{"a":'.repeat(depth / 2) + '0' + '}]'.repeat(depth / 2);
    expect(codeOf(nested(MAX_JSON_DEPTH))).toBe('accepted');
    expect(codeOf(nested(MAX_JSON_DEPTH + 2))).toBe('malformed_json');
    expect(codeOf(nested(200_000))).toBe('malformed_json');
    expect(codeOf('['.repeat(200_000))).toBe('malformed_json');
  });

  it('names the member, cut short, and never quotes the text around it', () => {
    const secret = 'hunter2-hunter2';
    const name = 'n'.repeat(100);
    for (const source of [`{"password":"${secret}"`, `{"a":"${secret}","${name}":1,"${name}":2}`]) {
      const error = refusalOf(source);
      expect(`${error.message} ${String(error.cause)}`).not.toContain('hunter2');
      expect(error.message.length).toBeLessThan(120);
    }
  });
});
