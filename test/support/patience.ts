import { vi } from 'vitest';

/**
 * Runs before each test file. A test waits for a fact, and how long that takes says nothing on a machine that is slow or busy:
 * vitest gives `vi.waitFor` a second by itself, and has no setting for it. That of `expect.poll` is in vitest.config.ts.
 */
const { waitFor } = vi;
export const PATIENCE_MILLIS = 60_000;

vi.waitFor = (look, options = {}) =>
  waitFor(look, { timeout: PATIENCE_MILLIS, ...(typeof options === 'number' ? { timeout: options } : options) });
