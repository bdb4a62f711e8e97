import { afterAll, describe, test } from 'vitest';
import { findMiniStack } from '../support/ministack.ts';
import { awsDriver } from './drivers/aws-sts.ts';
import { testProvider } from './provider/index.ts';
import { extent } from './extent.ts';

const home = await findMiniStack();

describe.skipIf(home === undefined)('aws-sts MiniStack', () => {
  testProvider(awsDriver(home ?? ''), { test, after: afterAll }, extent);
});
