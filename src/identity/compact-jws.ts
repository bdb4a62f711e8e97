import { MayflyError } from '../domain/errors.ts';
import type { Refusals } from './refusals.ts';
import { parseStrictJson } from './strict-json.ts';

/** Longest token that is looked at, in characters. */
export const MAX_COMPACT_CHARS = 16 * 1024;

const GRAMMAR = /^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}$/;
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** What can be wrong with any JWS before anything in it is looked at. */
type FormRefusals = Pick<Refusals, 'malformed' | 'duplicate'>;

export type JsonObject = Readonly<Record<string, unknown>>;

/** A JWS in compact form (RFC 7515 §7.1), taken apart. Nothing in it is believed yet. */
export interface CompactJws {
  /** Exactly as received: what the signature is checked over. */
  readonly text: string;
  readonly header: JsonObject;
  /** The decoded payload, which need not be JSON. */
  readonly payload: Buffer;
}

/**
 * Takes a compact JWS apart under a grammar stricter than jose's, which also decodes padding, white space and
 * stray bits: there one token has many spellings (Wycheproof tcId 360, 365, 367, 368, 370, 375).
 * @throws MayflyError `refusals.malformed`, or `refusals.duplicate` for a header member given twice.
 */
export function decodeCompactJws(text: string, refusals: FormRefusals): CompactJws {
  if (text.length > MAX_COMPACT_CHARS) {
    throw new MayflyError(refusals.malformed, `It is longer than ${MAX_COMPACT_CHARS} characters.`);
  }
  if (!GRAMMAR.test(text)) throw new MayflyError(refusals.malformed, 'It is not three base64url parts joined by dots.');
  const [header, payload, signature] = text.split('.').map(decodeBase64url);
  if (!header || !payload || !signature)
    throw new MayflyError(refusals.malformed, 'A part is not canonical base64url.');
  return { text, header: readObject(header, 'header', refusals), payload };
}

/**
 * The payload as a JSON object.
 * @throws MayflyError `refusals.malformed` or `refusals.duplicate`.
 */
export function readClaims(jws: CompactJws, refusals: FormRefusals): JsonObject {
  return readObject(jws.payload, 'payload', refusals);
}

/** The bytes behind base64url without padding (RFC 4648 §5), or undefined for any spelling but the canonical one. */
export function decodeBase64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

function readObject(bytes: Buffer, part: 'header' | 'payload', refusals: FormRefusals): JsonObject {
  const value = parsePart(bytes, part, refusals);
  if (!isJsonObject(value)) throw new MayflyError(refusals.malformed, `The ${part} is not a JSON object.`);
  return value;
}

function parsePart(bytes: Buffer, part: 'header' | 'payload', refusals: FormRefusals): unknown {
  try {
    return parseStrictJson(UTF8.decode(bytes));
  } catch (cause) {
    if (cause instanceof MayflyError && cause.code === 'duplicate_member') {
      throw new MayflyError(refusals.duplicate, `In the ${part}: ${cause.detail}`);
    }
    throw new MayflyError(refusals.malformed, `The ${part} is not strict JSON in UTF-8.`, { cause });
  }
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
