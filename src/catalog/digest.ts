import { createHash } from 'node:crypto';

/**
 * `sha256:<hex>` over the files, sorted by path. Each path and content comes with its length in bytes before it,
 * so that no two catalogs have the same bytes hashed.
 */
export function catalogDigest(files: Readonly<Record<string, string>>): string {
  const hash = createHash('sha256');
  const entries = Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const part of entries.flat()) {
    const bytes = Buffer.from(part);
    hash.update(`${bytes.length}:`).update(bytes);
  }
  return `sha256:${hash.digest('hex')}`;
}
