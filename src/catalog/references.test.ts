import { describe, expect, test } from 'vitest';
import { parseReference } from './references.ts';
import { faultLines, sampleEdited, sampleFiles, sampleWith } from './testing/sample.ts';

describe('a reference of ledger-db', () => {
  test.each([
    ['env:MAYFLY_TARGET_LEDGER_DB_PASSWORD', { kind: 'env', name: 'MAYFLY_TARGET_LEDGER_DB_PASSWORD' }],
    ['file:password', { kind: 'file', path: 'password' }],
    ['file:tls/ca.pem', { kind: 'file', path: 'tls/ca.pem' }],
  ])('%s is its own', (text, reference) => {
    expect(parseReference('ledger-db', text)).toEqual(reference);
  });

  test.each([
    'env:MAYFLY_DATABASE_URL',
    'env:MAYFLY_TARGET_LEDGER_DB_',
    'env:MAYFLY_TARGET_OTHER_PASSWORD',
    'env:PATH',
    'env:',
    'env:MAYFLY_TARGET_LEDGER_DB_password',
    'file:',
    'file:/etc/passwd',
    'file:../other/password',
    'file:a/../../b',
    'file:./password',
    'file:a//b',
    'file:a\\b',
    'file:...',
    'file:a\u0000',
    'FILE:password',
    'hunter2',
  ])('%s is refused', (text) => {
    expect(parseReference('ledger-db', text)).toMatchObject({ kind: 'refused' });
  });
});

describe('secrets in clear', () => {
  const path = 'targets/ledger.yaml';
  const secret = 'hunter2-is-my-secret';
  const clear = 'looks like a secret in clear: write `env:NAME` or `file:path`';

  test('are refused wherever they stand, and never repeated', () => {
    const lines = faultLines(sampleEdited(path, 'file:password', secret));
    expect(lines).toEqual([`${path}:5 $.connection.password: ${clear}`]);
    expect(lines.join()).not.toContain(secret);
  });

  test.each(['api_key', 'client_secret', 'token', 'aws_secret_access_key', 'private_key'])(
    'are known by the name %s, however deep',
    (name) => {
      const files = sampleEdited(path, '  password: file:password', `  options: { auth: [{ ${name}: ${secret} }] }`);
      expect(faultLines(files)).toEqual([`${path}:5 $.connection.options.auth[0].${name}: ${clear}`]);
    },
  );

  test('are refused in an entitlement’s provider section too', () => {
    const files = sampleEdited(
      'entitlements/ledger.yaml',
      '{ template: reader }',
      `{ template: a, secret: ${secret} }`,
    );
    expect(faultLines(files)).toEqual([`entitlements/ledger.yaml:7 $[0].provider.secret: ${clear}`]);
  });

  test('are found in a URL', () => {
    expect(faultLines(sampleEdited(path, 'host: db.example', `host: "postgres://me:${secret}@db.example"`))).toEqual([
      `${path}:4 $.connection.host: holds a password in a URL: write it as a reference in a field of its own`,
    ]);
  });

  test('are found as private keys in any file, also in a comment', () => {
    const key = '# one\n# -----BEGIN RSA PRIVATE KEY-----\n';
    expect(faultLines(sampleWith({ 'limits.yaml': key }))).toEqual([
      'limits.yaml:2: holds a private key: the catalog keeps no secrets',
    ]);
  });
});

describe('references that reach too far', () => {
  const path = 'targets/ledger.yaml';
  test('are refused when the catalog is checked', () => {
    expect(faultLines(sampleEdited(path, 'file:password', 'env:MAYFLY_DATABASE_URL'))).toEqual([
      `${path}:5 $.connection.password: may only name variables that begin with MAYFLY_TARGET_LEDGER_`,
    ]);
    expect(faultLines(sampleEdited(path, 'file:password', 'file:../other/password'))).toEqual([
      `${path}:5 $.connection.password: must be a path below the secrets folder of ledger, without \`..\``,
    ]);
  });

  test('a variable belongs to the target with the longer name', () => {
    const other = (sampleFiles[path] ?? '').replace('name: ledger', 'name: ledger-db');
    const files = {
      ...sampleEdited(path, 'file:password', 'env:MAYFLY_TARGET_LEDGER_DB_PASSWORD'),
      'targets/ledger-db.yaml': other,
    };
    expect(faultLines(files)).toEqual([
      `${path}:5 $.connection.password: that variable belongs to the target ledger-db`,
    ]);
  });
});
