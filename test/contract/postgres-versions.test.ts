import { describe, test } from 'vitest';
import { availableVersions } from '../support/postgres-servers.ts';

/**
 * The life and the attacks on the versions between those that every suite runs on. The whole matrix is
 * `npm run test:contract -- postgres`.
 */
const versions = availableVersions([14, 16, 17]);
if (versions.length === 0) {
  describe.skip('PostgreSQL 14, 16 and 17', () => {
    test.todo('are not here');
  });
} else {
  process.env['MAYFLY_TEST_PG_VERSIONS'] = versions.join(',');
  await import('./postgres-life.test.ts');
  await import('./postgres-attacks.test.ts');
}
