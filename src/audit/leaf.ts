import { createHash } from 'node:crypto';
import canonicalize from 'canonicalize';

/**
 * The hash of one row of evidence as a leaf of the tree: SHA-256(0x00 ‖ JCS(row)), RFC 9162 §2.1.1 over RFC 8785.
 * @param row The columns of the row without the hash: strings, safe integers, null and plain JSON.
 */
export function leafHash(row: Readonly<Record<string, unknown>>): Buffer {
  const text = canonicalize(row);
  if (text === undefined) throw new TypeError('An audit row must be JSON.');
  return createHash('sha256').update(Buffer.of(0)).update(text).digest();
}
