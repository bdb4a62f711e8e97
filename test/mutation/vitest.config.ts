import { defineConfig } from 'vitest/config';

/** The tests that Stryker judges the mutants by: those that call the mutated modules in their own process. */
export default defineConfig({
  test: {
    restoreMocks: true,
    unstubEnvs: true,
    unstubGlobals: true,
    teardownTimeout: 5_000,
    env: { NODE_ENV: 'test', TZ: 'UTC' },
    include: ['src/{domain,revocation}/**/*.test.ts', 'test/integration/engine-*.test.ts'],
    testTimeout: 10_000,
    hookTimeout: 20_000,
  },
});
