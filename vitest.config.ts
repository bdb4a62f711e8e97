import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';
import { LongFirst } from './test/support/long-first.ts';

/**
 * `unit` stands beside the code; `system` starts real servers. Each system file runs
 * in a process of its own (forks), so that a leaked handle or a changed environment ends with it; two at a time on each core, since each waits for its
 * servers often.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: Math.min(4, availableParallelism() * 2),
    sequence: { sequencer: LongFirst },
    restoreMocks: true,
    unstubEnvs: true,
    unstubGlobals: true,
    // A file that does not let go of its handles is ended, and said so, instead of hanging the run.
    teardownTimeout: 20_000,
    env: { NODE_ENV: 'test', TZ: 'UTC', AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' },
    // What a test waits for comes when it comes: a slow machine, or a busy one, is no fault.
    setupFiles: ['test/support/patience.ts'],
    expect: { poll: { timeout: 60_000 } },
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          // Loading the modules anew for each file costs more than all that these do; what one leaves behind is found by the others.
          isolate: false,
          include: ['{src,providers}/**/*.test.ts', 'test/*.test.ts', 'test/support/**/*.test.ts'],
          testTimeout: 90_000,
          hookTimeout: 180_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'system',
          include: ['test/{contract,integration,crash,faults,bench,model}/**/*.test.ts'],
          // Only by `npm run test:crash`.
          exclude: process.env['MAYFLY_CRASH_BACKEND'] === undefined ? ['test/crash/systems.test.ts'] : [],
          testTimeout: 180_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
});
