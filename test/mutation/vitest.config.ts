import { defineConfig } from 'vitest/config';

const ofDomain = 'src/domain/**/*.test.ts';

/** The tests that Stryker judges the mutants by: those that call the mutated modules in their own process. */
export default defineConfig({
  test: {
    restoreMocks: true,
    unstubEnvs: true,
    unstubGlobals: true,
    teardownTimeout: 5_000,
    env: { NODE_ENV: 'test', TZ: 'UTC' },
    // What stands at the top of a module is judged by all tests: the domain's machines by its own, which take a second.
    include:
      process.env['MAYFLY_MUTATED'] === 'domain'
        ? [ofDomain]
        : [ofDomain, 'src/revocation/**/*.test.ts', 'test/integration/engine-*.test.ts'],
    testTimeout: 10_000,
    hookTimeout: 20_000,
  },
});
