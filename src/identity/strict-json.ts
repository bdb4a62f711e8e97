import { MayflyError } from '../domain/errors.ts';

/** Deeper than any body or token of ours, and far from what could exhaust a stack further in. */
export const MAX_JSON_DEPTH = 32;

/** Matches half a surrogate pair only: with the `u` flag a whole pair is one character of another category. */
const LONE_SURROGATE = /\p{Surrogate}/u;

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/**
 * `JSON.parse` for text from strangers. The value is the same; refused besides are what readers disagree about
 * or choke on: a member name given twice in one object (also where one spelling is escaped; `JSON.parse` keeps
 * the last silently), half a surrogate pair, NUL inside a string, and nesting beyond {@link MAX_JSON_DEPTH}.
 * The caller bounds the size.
 * @param text Decoded text; decode bytes with a fatal UTF-8 decoder first.
 * @throws MayflyError `malformed_json` or `duplicate_member`.
 */
export function parseStrictJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // V8 quotes the text in its message, and the text may hold a secret: no cause.
    throw new MayflyError('malformed_json');
  }
  if (LONE_SURROGATE.test(text)) throw unfit('A string holds half a surrogate pair.');
  scan(text);
  return value;
}

/** Walks text that `JSON.parse` has accepted, so the syntax can be trusted: only names, strings and depth are looked at. */
function scan(text: string): void {
  /** One entry for each open bracket: the names seen in an object, null in an array. */
  const open: (Set<string> | null)[] = [];
  let nameNext = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case QUOTE: {
        const end = closingQuote(text, at);
        const string = unquote(text.slice(at, end + 1));
        const names = open.at(-1);
        if (nameNext && names) addName(names, string);
        nameNext = false;
        at = end;
        break;
      }
      case OPEN_OBJECT:
      case OPEN_ARRAY: {
        const isObject = text.charCodeAt(at) === OPEN_OBJECT;
        open.push(isObject ? new Set() : null);
        if (open.length > MAX_JSON_DEPTH) throw unfit(`It is nested deeper than ${MAX_JSON_DEPTH} levels.`);
        nameNext = isObject;
        break;
      }
      case CLOSE_OBJECT:
      case CLOSE_ARRAY:
        open.pop();
        nameNext = false;
        break;
      case COMMA:
        nameNext = open.at(-1) instanceof Set;
        break;
      case COLON:
        nameNext = false;
        break;
    }
  }
}

function closingQuote(text: string, opening: number): number {
  let at = opening + 1;
  while (text.charCodeAt(at) !== QUOTE) at += text.charCodeAt(at) === BACKSLASH ? 2 : 1;
  return at;
}

function unquote(literal: string): string {
  // Raw NUL and raw lone surrogates are refused before: only an escape can still hide one.
  if (!literal.includes('\\')) return literal.slice(1, -1);
  const string = String(JSON.parse(literal));
  if (string.includes('\0')) throw unfit('A string holds NUL.');
  if (LONE_SURROGATE.test(string)) throw unfit('A string holds half a surrogate pair.');
  return string;
}

function addName(names: Set<string>, name: string): void {
  if (names.has(name)) {
    throw new MayflyError('duplicate_member', `The member ${JSON.stringify(name.slice(0, 64))} appears twice.`);
  }
  names.add(name);
}

function unfit(detail: string): MayflyError {
  return new MayflyError('malformed_json', detail);
}
