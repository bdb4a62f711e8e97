import { afterAll, describe, test } from 'vitest';
import { availableVersions } from '../support/postgres-servers.ts';
import { postgresDriver } from './drivers/postgres.ts';
import { testProvider } from './provider/index.ts';
import { extent } from './extent.ts';

// One is enough where all else is tested too; `npm run test:contract` shows each that is there.
const versions =
  process.env['MAYFLY_TEST_EVERY_BACKEND'] === undefined ? availableVersions().slice(-1) : availableVersions();

describe.each(versions)('postgres %i', (version) => {
  testProvider(postgresDriver(version), { test, after: afterAll }, extent);
});
