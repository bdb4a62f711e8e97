import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ProviderError } from '../provider.ts';
import { createSecretResolver, type SecretResolver } from './secrets.ts';

let base: string;
let own: string;
let resolve: SecretResolver;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'mayfly-secrets-'));
  own = join(base, 'targets', 'ledger-db');
  mkdirSync(own, { recursive: true });
  mkdirSync(join(base, 'targets', 'ledger-db-2'));
  writeFileSync(join(own, 'password'), 'correct horse\n');
  writeFileSync(join(base, 'targets', 'ledger-db-2', 'password'), 'theirs');
  writeFileSync(join(base, 'broker-secret'), 'ours');
  resolve = createSecretResolver({
    secretsDir: join(base, 'targets'),
    env: {
      MAYFLY_TARGET_LEDGER_DB_PASSWORD: 'from env',
      MAYFLY_DATABASE_URL: 'ours',
      MAYFLY_TARGET_LEDGER_DB_EMPTY: '',
    },
  });
});
afterEach(() => rmSync(base, { recursive: true }));

function refusal(reference: string): string {
  try {
    resolve('ledger-db', reference);
  } catch (error) {
    if (error instanceof ProviderError && error.errorClass === 'misconfigured') return error.message;
    throw error;
  }
  throw new Error('it was resolved');
}

test('a file below the target’s folder is read, without its last line break', () => {
  expect(resolve('ledger-db', 'file:password').reveal()).toBe('correct horse');
  writeFileSync(join(own, 'windows'), ' two\r\n\r\n');
  expect(resolve('ledger-db', 'file:windows').reveal()).toBe(' two\r\n');
});

test('a file is read again each time', () => {
  expect(resolve('ledger-db', 'file:password').reveal()).toBe('correct horse');
  writeFileSync(join(own, 'password'), 'rotated\n');
  expect(resolve('ledger-db', 'file:password').reveal()).toBe('rotated');
});

test('the target’s own variable is read', () => {
  expect(resolve('ledger-db', 'env:MAYFLY_TARGET_LEDGER_DB_PASSWORD').reveal()).toBe('from env');
});

test('what comes out does not print', () => {
  expect(String(resolve('ledger-db', 'file:password'))).toBe('[secret]');
});

test('a secret mounted by Kubernetes is read through its links', () => {
  mkdirSync(join(own, '..2026_01_01'));
  writeFileSync(join(own, '..2026_01_01', 'mounted'), 'x');
  symlinkSync('..2026_01_01', join(own, '..data'));
  symlinkSync('..data/mounted', join(own, 'mounted'));
  expect(resolve('ledger-db', 'file:mounted').reveal()).toBe('x');
});

test('links out of the folder lead nowhere: not to the broker’s secrets, nor to another target’s', () => {
  symlinkSync('../../broker-secret', join(own, 'broker'));
  symlinkSync('../ledger-db-2', join(own, 'other'));
  symlinkSync('..', join(own, 'up'));
  for (const path of ['broker', 'other/password', 'up/ledger-db-2/password']) {
    expect(refusal(`file:${path}`)).toMatch(/leads out of the target’s secrets folder$/);
  }
});

test('a reference that is not the target’s own is refused before anything is looked at', () => {
  for (const reference of ['env:MAYFLY_DATABASE_URL', 'file:../ledger-db-2/password', 'file:/etc/passwd']) {
    expect(refusal(reference)).toMatch(/^ledger-db: a secret (may only name|must be a path)/);
  }
});

test('a secret in clear is not repeated in the refusal', () => {
  expect(refusal('correct horse')).not.toContain('horse');
});

test('what is not there, empty, too large, no file or no text is refused', () => {
  writeFileSync(join(own, 'empty'), '\n');
  writeFileSync(join(own, 'large'), 'x'.repeat(64 * 1024 + 1));
  writeFileSync(join(own, 'binary'), new Uint8Array([0xff]));
  mkdirSync(join(own, 'folder'));
  execFileSync('mkfifo', [join(own, 'fifo')]);
  expect(refusal('file:nowhere')).toBe('ledger-db: file:nowhere is not there');
  expect(refusal('file:empty')).toBe('ledger-db: file:empty is empty');
  expect(refusal('file:large')).toBe('ledger-db: file:large is larger than 65536 bytes');
  expect(refusal('file:binary')).toBe('ledger-db: file:binary is not UTF-8 text');
  expect(refusal('file:folder')).toBe('ledger-db: file:folder is not a file');
  expect(refusal('file:fifo')).toBe('ledger-db: file:fifo is not a file');
  expect(refusal('env:MAYFLY_TARGET_LEDGER_DB_EMPTY')).toMatch(/is not set$/);
  expect(refusal('env:MAYFLY_TARGET_LEDGER_DB_OTHER')).toMatch(/is not set$/);
});

test('a target without a folder has no files', () => {
  expect(() => resolve('unknown', 'file:password')).toThrow('unknown: file:password is not there');
});
