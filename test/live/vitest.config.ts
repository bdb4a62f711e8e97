import { defineConfig } from 'vitest/config';

/** `npm run test:aws-live`: against a real account, named by the environment. Never part of `npm test`. */
export default defineConfig({
  test: {
    include: ['test/live/**/*.test.ts'],
    env: { NODE_ENV: 'test', TZ: 'UTC', AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED: 'true' },
    fileParallelism: false,
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
