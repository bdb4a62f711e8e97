import { afterAll, describe, test } from 'vitest';
import { vaultDriver } from './drivers/vault.ts';
import { extent } from './extent.ts';
import { testProvider } from './provider/index.ts';
import { flavours } from './vault-flavours.ts';

// One is enough where all else is tested too; `npm run test:contract` shows each.
const shown = process.env['MAYFLY_TEST_EVERY_BACKEND'] === undefined ? flavours.slice(0, 1) : flavours;

for (const { name, folder, binary } of shown) {
  describe.skipIf(folder === undefined)(`vault (${name})`, () => {
    testProvider(vaultDriver(folder ?? '', binary), { test, after: afterAll }, extent);
  });
}
