import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { targetSchema } from './schema.ts';
import { certificateAuthority, tlsOptions } from './tls.ts';

const certificate = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----';
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-tls-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function target(changes: Readonly<Record<string, unknown>>) {
  return targetSchema.parse({ host: 'db.example', database: 'd', user: 'u', password: 'env:P', ...changes });
}
function file(text: string): string {
  const path = join(folder, 'ca.pem');
  writeFileSync(path, text);
  return path;
}

describe('the authority of a target', () => {
  test('is read anew each time, so that a rotated file counts', () => {
    const rotated = target({ ca_file: file(certificate) });
    expect(certificateAuthority(rotated)).toBe(`${certificate}\n`);
    file(`${certificate}\n${certificate}`);
    expect(certificateAuthority(rotated)).toBe(`${certificate}\n${certificate}\n`);
  });

  test('takes nothing but certificates out of a file, since agents are told', () => {
    const mixed = file(`root:x:0:0\n-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n${certificate}`);
    expect(certificateAuthority(target({ ca_file: mixed }))).toBe(`${certificate}\n`);
  });

  test.each(['a file without certificates', 'no file'])('is misconfigured with %s', (what) => {
    const path = what === 'no file' ? join(folder, 'nowhere') : file('root:x:0:0');
    expect(() => certificateAuthority(target({ ca_file: path }))).toThrow(
      expect.objectContaining({ errorClass: 'misconfigured' }),
    );
  });

  test('is that of the system unless one is named', () => {
    expect(certificateAuthority(target({}))).toBeUndefined();
    expect(tlsOptions(target({}), 'db.example')).not.toHaveProperty('ca');
  });
});
