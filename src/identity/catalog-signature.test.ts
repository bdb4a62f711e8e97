import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CompactSign, SignJWT } from 'jose';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError } from '../config.ts';
import { MayflyError } from '../domain/errors.ts';
import { CatalogKeys, readCatalogKeys, requireFresh, signCatalog } from './catalog-signature.ts';
import { thumbprintOf } from './vet-keys.ts';

const NOW = new Date('2026-11-23T20:00:00Z');
const catalog = { digest: `sha256:${'a'.repeat(64)}`, changeControl: { serial: 7, fourEyes: [] } };
const commit = 'f'.repeat(40);

const publicJwk = (key: KeyObject) => {
  const { kty = '', crv = '', x = '', y } = createPublicKey(key).export({ format: 'jwk' });
  return { kty, crv, x, ...(y === undefined ? {} : { y }) };
};
const kidOf = (key: KeyObject) => thumbprintOf(publicJwk(key));
const asPem = (key: KeyObject) => key.export({ format: 'pem', type: 'pkcs8' }).toString();
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const ed = generateKeyPairSync('ed25519').privateKey;
const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
const jwks = { keys: [ec, ed].map((key) => ({ ...publicJwk(key), kid: kidOf(key) })) };
const keys = new CatalogKeys(jwks);

async function codeOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    if (error instanceof MayflyError) return error.code;
    throw error;
  }
  return 'none';
}
const signed = (claims: object, header: object = {}, key = ec) =>
  new SignJWT({ digest: catalog.digest, serial: 7, commit, iat: NOW.getTime() / 1000, ...claims })
    .setProtectedHeader({ alg: 'ES256', typ: 'mayfly-catalog+jwt', kid: kidOf(key), ...header })
    .sign(key);

describe('the word of whoever vouches for a catalog', () => {
  test.each([
    ['P-256, as PEM', ec, asPem(ec)],
    ['P-256, as JWK', ec, JSON.stringify(ec.export({ format: 'jwk' }))],
    ['Ed25519, as PEM', ed, asPem(ed)],
    ['Ed25519, as JWK with a kid', ed, JSON.stringify({ ...ed.export({ format: 'jwk' }), kid: kidOf(ed) })],
  ])('is believed from a key %s', async (_, _key, text) => {
    const signature = await signCatalog(text, catalog, commit, NOW);
    expect(await keys.verify(signature, catalog)).toEqual({
      digest: catalog.digest,
      serial: 7,
      commit,
      iat: NOW.getTime() / 1000,
    });
  });

  test('holds for a day, and not before it was given', () => {
    const at = (seconds: number) =>
      codeOf(() => requireFresh({ digest: '', serial: null, commit: null, iat: NOW.getTime() / 1000 + seconds }, NOW));
    return expect(Promise.all([0, -86_400, 30, -86_401, 31].map(at))).resolves.toEqual([
      ...['none', 'none', 'none'],
      ...['catalog_signature_old', 'catalog_signature_old'],
    ]);
  });

  const wrong: readonly (readonly [string, () => Promise<string | null>, string])[] = [
    ['is not there', async () => null, 'catalog_signature_missing'],
    ['is empty', async () => '', 'catalog_signature_invalid'],
    ['is no JWS', async () => 'a.b', 'catalog_signature_invalid'],
    ['is by another key', () => signed({}, {}, stranger), 'catalog_signature_invalid'],
    [
      'is by another key under a known kid',
      () => signed({}, { kid: kidOf(ec) }, stranger),
      'catalog_signature_invalid',
    ],
    ['names no key', () => signed({}, { kid: undefined }), 'catalog_signature_invalid'],
    ['is of another type', () => signed({}, { typ: 'agent-task+jwt' }), 'catalog_signature_invalid'],
    ['has more in its header', () => signed({}, { jku: 'https://keys.example' }), 'catalog_signature_invalid'],
    ['says nothing of the commit', () => signed({ commit: undefined }), 'catalog_signature_invalid'],
    ['has a serial that is text', () => signed({ serial: '7' }), 'catalog_signature_invalid'],
    ['is for another catalog', () => signed({ digest: `sha256:${'b'.repeat(64)}` }), 'catalog_signature_mismatch'],
    ['is for another serial', () => signed({ serial: 8 }), 'catalog_signature_mismatch'],
    ['is for none', () => signed({ serial: null }), 'catalog_signature_mismatch'],
    [
      'says things twice',
      () =>
        new CompactSign(
          new TextEncoder().encode(`{"digest":"x","digest":"${catalog.digest}","serial":7,"commit":null,"iat":1}`),
        )
          .setProtectedHeader({ alg: 'ES256', typ: 'mayfly-catalog+jwt', kid: kidOf(ec) })
          .sign(ec),
      'catalog_signature_invalid',
    ],
  ];
  test.each(wrong)('that %s is refused', async (_, make, code) => {
    const signature = await make();
    expect(await codeOf(() => keys.verify(signature, catalog))).toBe(code);
  });

  test('with any one character changed is refused', async () => {
    const good = await signed({});
    for (let at = 0; at < good.length; at += 7) {
      const other = good[at] === 'A' ? 'B' : 'A';
      const changed = good.slice(0, at) + other + good.slice(at + 1);
      expect([at, await codeOf(() => keys.verify(changed, catalog))]).not.toEqual([at, 'none']);
    }
  });

  test('is signed with no other key, and says nothing of it', async () => {
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;
    await expect(signCatalog(asPem(rsa), catalog, null, NOW)).rejects.toThrow('P-256 or Ed25519');
    await expect(signCatalog('{"kty":"EC","d":"secret"}', catalog, null, NOW)).rejects.toThrow(
      /^The key can not be read/,
    );
    await expect(signCatalog('-----BEGIN secret', catalog, null, NOW)).rejects.not.toThrow('secret');
  });
});

describe('the file of keys', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-keys-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each([
    ['is no JSON', 'x'],
    ['is no key set', '{}'],
    ['is empty', '{"keys":[]}'],
    ['holds a private key', JSON.stringify({ keys: [{ ...ec.export({ format: 'jwk' }), kid: 'a' }] })],
    ['holds a key without a kid', JSON.stringify({ keys: [publicJwk(ec)] })],
  ])('that %s stops the start, by name', (_, text) => {
    const path = join(folder, 'keys.json');
    writeFileSync(path, text);
    expect(() => readCatalogKeys({ catalog_keys: path })).toThrow(ConfigError);
    expect(() => readCatalogKeys({ catalog_keys: path })).toThrow('MAYFLY_CATALOG_KEYS');
  });

  test('that is not named asks nobody to vouch; one that is not there stops the start', () => {
    expect(readCatalogKeys({})).toBeNull();
    expect(() => readCatalogKeys({ catalog_keys: join(folder, 'none.json') })).toThrow('can not be read');
  });
});
