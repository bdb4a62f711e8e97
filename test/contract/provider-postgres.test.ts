import { afterAll, describe, test } from 'vitest';
import { availableVersions } from '../support/postgres-servers.ts';
import { postgresDriver } from './drivers/postgres.ts';
import { testProvider } from './provider/index.ts';

describe.each(availableVersions().slice(0, 1))('postgres %i', (version) => {
  testProvider(postgresDriver(version), { test, after: afterAll });
});
