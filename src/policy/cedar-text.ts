/**
 * Reads Cedar's text just enough to find its policies and to keep what would break Cedar away from it.
 *
 * Cedar's WebAssembly build overruns its stack on deep nesting, and then the whole process can decide nothing any
 * more. Measured with 4.13: brackets nested 80 to 200 deep trap when parsed, a chain of 400 `||` parses, validates
 * and traps when it is evaluated, records nested 1000 deep trap in a schema. The bounds stay well below.
 */
export const cedarLimits = { brackets: 30, operators: 300, depth: 64, schemaBytes: 64 * 1024, policies: 2000 } as const;

export interface PolicyText {
  /** Offset of its first character in the file: that of its first annotation, or of `permit` or `forbid`. */
  readonly start: number;
  /** With the closing `;`. The last piece of a file may lack it, and is then Cedar's to refuse. */
  readonly text: string;
}

/** The text with comments and the contents of strings turned into spaces: same length, same lines. */
export function blank(text: string): string {
  return text.replace(/\/\/[^\n]*|"(?:\\[^]|[^"\\])*("|$)/g, (found, closing: string | undefined) => {
    const empty = found.replace(/[^\n]/g, ' ');
    return found.startsWith('"') ? `"${empty.slice(1, empty.length - (closing ?? '').length)}${closing ?? ''}` : empty;
  });
}

/** The policies of a file, in order. A semicolon ends one; Cedar has no other use for it. */
export function splitPolicies(text: string): readonly PolicyText[] {
  const bare = blank(text);
  const pieces: PolicyText[] = [];
  let from = 0;
  while (from < bare.length) {
    const start = bare.slice(from).search(/\S/);
    if (start < 0) break;
    const end = bare.indexOf(';', from + start);
    const until = end < 0 ? bare.trimEnd().length : end + 1;
    pieces.push({ start: from + start, text: text.slice(from + start, until) });
    from = until;
  }
  return pieces;
}

/** Why a policy is too much for Cedar to parse, or undefined. */
export function policyTooLarge(text: string): string | undefined {
  const bare = blank(text);
  if (bracketDepth(bare, '([{', ')]}') > cedarLimits.brackets) {
    return `nests brackets more than ${cedarLimits.brackets} deep`;
  }
  const operators = bare.match(/&&|\|\||[+\-*.!]|\b(if|when|unless)\b/g)?.length ?? 0;
  return operators > cedarLimits.operators ? `has more than ${cedarLimits.operators} operators: split it` : undefined;
}

/** Why a parsed policy is too deep for Cedar to evaluate, or undefined. Each operator is two levels of its JSON. */
export function policyTooDeep(conditions: readonly unknown[]): string | undefined {
  return conditions.length + jsonDepth(conditions) / 2 > cedarLimits.depth
    ? `is more than ${cedarLimits.depth} operators deep: split it, or write [\u2026].contains(\u2026) for a long chain of ||`
    : undefined;
}

/** Why a schema is too much for Cedar, or undefined. */
export function schemaTooLarge(text: string): string | undefined {
  if (Buffer.byteLength(text) > cedarLimits.schemaBytes) return `is larger than ${cedarLimits.schemaBytes} bytes`;
  return bracketDepth(blank(text), '([{<', ')]}>') > cedarLimits.brackets
    ? `nests brackets more than ${cedarLimits.brackets} deep`
    : undefined;
}

/** Line, counted from 1, of an offset in UTF-8 bytes (as Cedar counts). */
export function lineOfByte(text: string, byteOffset: number): number {
  return lineOf(Buffer.from(text).subarray(0, byteOffset).toString(), Number.POSITIVE_INFINITY);
}

/** Line, counted from 1, of an offset in UTF-16 units (as JavaScript counts). */
export function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}

function bracketDepth(bare: string, opening: string, closing: string): number {
  let depth = 0;
  let deepest = 0;
  for (const character of bare) {
    if (opening.includes(character)) deepest = Math.max(deepest, ++depth);
    else if (closing.includes(character)) depth -= 1;
  }
  return deepest;
}

function jsonDepth(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Object.values(value).reduce((deepest: number, member) => Math.max(deepest, jsonDepth(member)), 0);
}
