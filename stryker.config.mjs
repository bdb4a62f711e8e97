import process from 'node:process';

/** Which folder is mutated; see test/mutation/run.ts. */
const folder = process.env.MAYFLY_MUTATED ?? 'revocation';

export default {
  testRunner: 'vitest',
  plugins: ['@stryker-mutator/vitest-runner', './test/mutation/ignore.mjs'],
  ignorers: ['mayfly'],
  vitest: { configFile: 'test/mutation/vitest.config.ts' },
  mutate: [`src/${folder}/**/*.ts`, '!**/*.test.ts'],
  // Without it Stryker asks the compiler, whose version 7 has no interface for that.
  tsconfigFile: 'none.json',
  coverageAnalysis: 'perTest',
  concurrency: 2,
  timeoutMS: 5_000,
  reporters: ['clear-text', 'progress-append-only', 'json', 'html'],
  clearTextReporter: { logTests: false },
  jsonReporter: { fileName: `coverage/mutation/${folder}.json` },
  htmlReporter: { fileName: `coverage/mutation/${folder}.html` },
  incrementalFile: `coverage/mutation/${folder}-incremental.json`,
  thresholds: { high: 90, low: 80, break: 80 },
  tempDirName: 'coverage/mutation-sandbox',
  // A copy with settings of its own would be found by the formatter.
  ignorePatterns: ['coverage', 'dist', '.mayfly', 'helm', 'docs', 'docker', 'biome.json'],
};
