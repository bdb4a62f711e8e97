import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { freePort } from '../../test/support/free-port.ts';
import type { DevOptions } from './dev.ts';
import { openDev } from './dev-broker.ts';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-dev-'));
  for (const name of Object.keys(process.env)) if (name.startsWith('MAYFLY_')) vi.stubEnv(name, undefined);
  vi.stubEnv('MAYFLY_DIR', join(folder, '.mayfly'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('dev mode refuses, and makes nothing', () => {
  const url = 'postgres://user:do-not-print@db.example/state';
  test.each<[what: string, env: Record<string, string>, says: RegExp, options?: DevOptions]>([
    ['production', { NODE_ENV: 'production' }, /it refuses NODE_ENV=production/],
    ['a store of yours', { MAYFLY_DATABASE_URL: url }, /^ {2}MAYFLY_DATABASE_URL: .*own embedded store/m],
    ['a store of yours in a file', { MAYFLY_DATABASE_URL_FILE: '/x' }, /^ {2}MAYFLY_DATABASE_URL_FILE: /m],
    ['its owner', { MAYFLY_OWNER_DATABASE_URL: url }, /^ {2}MAYFLY_OWNER_DATABASE_URL: /m],
    ['its sequencer', { MAYFLY_SEQUENCER_DATABASE_URL: url }, /^ {2}MAYFLY_SEQUENCER_DATABASE_URL: /m],
    ['a listener for all', { MAYFLY_HOST: '0.0.0.0' }, /^ {2}MAYFLY_HOST: .*loopback only, not on 0\.0\.0\.0$/m],
    ['a listener for all, of the other kind', { MAYFLY_HOST: '::' }, /^ {2}MAYFLY_HOST: .*loopback only, not on ::$/m],
    ['a setting that it does not know', { MAYFLY_DATABSE: 'x' }, /^ {2}MAYFLY_DATABSE: no such setting$/m],
    ['a port in another spelling', {}, /"0x10" is not a port from 1 to 65535/, { postgresPort: '0x10' }],
    ['a port beyond all', {}, /"65536" is not a port/, { issuerPort: '65536' }],
    ['a catalog that is not there', {}, /The catalog has one fault/, { catalog: '/no/such/folder' }],
  ])('%s', async (_what, env, says, options = {}) => {
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    const error: unknown = await openDev({ ...options, quiet: true }).catch((refused: unknown) => refused);
    expect(String(error)).toMatch(says);
    expect(String(error)).not.toContain('do-not-print');
    expect(existsSync(join(folder, '.mayfly'))).toBe(false);
  });

  test.each<[who: string, setting: string, use: (port: string) => DevOptions]>([
    [
      'The broker',
      'MAYFLY_PORT',
      (port) => {
        vi.stubEnv('MAYFLY_PORT', port);
        return {};
      },
    ],
    ['The dev issuer', '--issuer-port', (port) => ({ issuerPort: port })],
  ])('%s on a port that is taken', async (who, setting, use) => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    try {
      const address = other.address();
      const port = String(typeof address === 'object' && address !== null ? address.port : 0);
      vi.stubEnv('MAYFLY_PORT', String(await freePort()));
      const error: unknown = await openDev({ ...use(port), quiet: true }).catch((refused: unknown) => refused);
      expect(error).toMatchObject({
        code: 'port_taken',
        message: expect.stringMatching(
          `^${who} cannot listen on 127.0.0.1:${port}, .*another port with ${setting}\\.$`,
        ),
      });
      expect(existsSync(join(folder, '.mayfly'))).toBe(false);
    } finally {
      other.close();
    }
  });

  test('everything that is wrong, at once', async () => {
    vi.stubEnv('MAYFLY_HOST', '10.0.0.1');
    vi.stubEnv('MAYFLY_DATABASE_URL', url);
    await expect(openDev({})).rejects.toThrow(/MAYFLY_DATABASE_URL[^]*MAYFLY_HOST/);
  });
});
