import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** The folder of one test server in the cache, outside the repository. @param name With its version. */
export function cachedServer(name: string): string {
  const cache = process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache');
  return join(cache, 'mayfly-test-servers', name);
}

/** Fills that folder by `make`, which works beside it: a half-made one is never found, nor is anything left of it. */
export async function fillCache(home: string, make: (half: string) => Promise<void>): Promise<void> {
  mkdirSync(dirname(home), { recursive: true });
  const half = mkdtempSync(`${home}-`);
  try {
    await make(half);
    rmSync(home, { recursive: true, force: true });
    renameSync(half, home);
  } finally {
    rmSync(half, { recursive: true, force: true });
  }
}

/** What a suite does without its server: it is skipped, aloud; in CI that is a failure. */
export function without(says: string): undefined {
  if (process.env['CI'] === 'true') throw new Error(says);
  console.warn(`\n*** SKIPPED: ${says} ***\n`);
}

/** Whether each of these files is in that folder. */
export function hasAll(folder: string, files: readonly string[]): boolean {
  return files.every((file) => existsSync(join(folder, file)));
}
