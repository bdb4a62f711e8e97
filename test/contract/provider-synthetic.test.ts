import { afterAll, describe, test } from 'vitest';
import type { Kind } from '../support/synthetic/target.ts';
import { syntheticDriver } from './drivers/synthetic.ts';
import { testProvider } from './provider/index.ts';
import { extent } from './extent.ts';

const kinds: readonly Kind[] = ['handles', 'document', 'expiry-only', 'irrevocable'];

describe.each(kinds)('synthetic %s', (kind) => {
  testProvider(syntheticDriver(kind), { test, after: afterAll }, extent);
});
