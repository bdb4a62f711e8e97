import { afterAll, describe, test } from 'vitest';
import { redisAvailable } from '../support/redis-server.ts';
import { driver } from './example/driver.ts';
import { testProvider } from './provider/index.ts';
import { extent } from './extent.ts';

describe.runIf(redisAvailable())('redis-acl', () => {
  testProvider(driver, { test, after: afterAll }, extent);
});
