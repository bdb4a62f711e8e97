import { expect, test } from 'vitest';
import { availableVersions, postgresVersions, usualVersions, versionsBetween } from '../support/postgres-binaries.ts';

/**
 * The life and the attacks on the versions between those that every suite runs on. The whole matrix is
 * `npm run test:contract -- postgres`.
 */
process.env['MAYFLY_TEST_PG_VERSIONS'] = availableVersions(versionsBetween).join(',');
await import('./postgres-life.test.ts');
await import('./postgres-attacks.test.ts');

test('every version is one that all suites run on, or one between', () => {
  const all = [...usualVersions, ...versionsBetween].sort((a, b) => a - b);
  expect(all).toEqual(postgresVersions);
});
