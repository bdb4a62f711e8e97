import type { RevocationDeps } from './deps.ts';

/** A write of the engine takes milliseconds. */
const HANGS_MILLIS = 1_500;

/**
 * Makes a write to the store, and tells while it hangs that nothing can be claimed on the target: with its standby dead, a
 * synchronous store keeps each commit for ever and answers every question, and what hangs is given up much later.
 */
export async function tellingHang<T>(
  deps: Pick<RevocationDeps, 'unclaimed'>,
  target: string,
  write: () => Promise<T>,
): Promise<T> {
  const hangs = setInterval(() => deps.unclaimed(target, 2 * HANGS_MILLIS), HANGS_MILLIS);
  try {
    return await write();
  } finally {
    clearInterval(hangs);
  }
}
