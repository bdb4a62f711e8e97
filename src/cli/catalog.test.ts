import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { expect, test, vi } from 'vitest';
import { addCatalogCommands } from './catalog.ts';

vi.mock(import('node:os'), async (original) => ({
  ...(await original()),
  userInfo: () => {
    throw new Error('uv_os_get_passwd returned ENOENT (no such file or directory)');
  },
}));

test('where the user has no account, as in many containers, the commands work all the same', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-catalog-'));
  for (const name of Object.keys(process.env)) if (name.startsWith('MAYFLY_')) vi.stubEnv(name, undefined);
  vi.stubEnv('MAYFLY_DIR', folder);
  try {
    const program = new Command().exitOverride();
    addCatalogCommands(program);
    // As far as the store, of which there is none here.
    await expect(program.parseAsync(['catalog', 'apply', folder], { from: 'user' })).rejects.toThrow(
      /MAYFLY_DATABASE_URL: missing/,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
