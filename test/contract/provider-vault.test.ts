import { afterAll, describe, test } from 'vitest';
import { vaultDriver } from './drivers/vault.ts';
import { testProvider } from './provider/index.ts';
import { openbaoFolder } from './vault-fixture.ts';

describe.skipIf(openbaoFolder === undefined)('vault (OpenBao 2.4.0)', () => {
  testProvider(vaultDriver(openbaoFolder ?? ''), { test, after: afterAll });
});
