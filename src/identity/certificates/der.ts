/** One value of DER (X.690 §10): its tag byte, and what stands in it. */
export interface DerValue {
  readonly tag: number;
  readonly bytes: Buffer;
}

/** Universal and context tags of RFC 5280 as they stand on the wire. */
export const tags = { boolean: 0x01, integer: 0x02, bits: 0x03, octets: 0x04, oid: 0x06, sequence: 0x30 } as const;

/**
 * The values that stand one after another.
 * @throws Error for what is no DER: a length in other than its shortest form or past the end, a tag of more than one byte.
 */
export function readDer(bytes: Buffer): readonly DerValue[] {
  const values: DerValue[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = byteAt(bytes, at);
    if ((tag & 0x1f) === 0x1f) throw new Error('a tag of more than one byte');
    const { length, begin } = readLength(bytes, at + 1);
    at = begin + length;
    if (at > bytes.length) throw new Error('a value is longer than what holds it');
    values.push({ tag, bytes: bytes.subarray(begin, at) });
  }
  return values;
}

/** The values in a value of this tag. @throws Error when there is none, or one of another tag. */
export function readInside(value: DerValue | undefined, tag: number): readonly DerValue[] {
  return readDer(contentOf(value, tag));
}

/** @throws Error when there is none, or one of another tag. */
export function contentOf(value: DerValue | undefined, tag: number): Buffer {
  if (value?.tag !== tag) throw new Error('another value than expected');
  return value.bytes;
}

function readLength(bytes: Buffer, at: number): { readonly length: number; readonly begin: number } {
  const first = byteAt(bytes, at);
  if (first < 0x80) return { length: first, begin: at + 1 };
  const count = first & 0x7f;
  if (count === 0 || count > 3) throw new Error('a length that is not definite, or absurd');
  let length = 0;
  for (let n = 1; n <= count; n++) length = length * 256 + byteAt(bytes, at + n);
  if (length < 0x80 || length < 256 ** (count - 1)) throw new Error('a length that is not in its shortest form');
  return { length, begin: at + 1 + count };
}

function byteAt(bytes: Buffer, at: number): number {
  const byte = bytes[at];
  if (byte === undefined) throw new Error('it ends too early');
  return byte;
}
