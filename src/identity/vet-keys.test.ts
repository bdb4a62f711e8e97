import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { makeKey } from './testing/keys.ts';
import { MAX_KEYS, vetKeys } from './vet-keys.ts';

const ALL = ['ES256', 'ES384', 'ES512', 'RS256', 'PS256', 'EdDSA', 'Ed25519'];
const ec = makeKey('ec').jwk;
const rsa = makeKey('rsa', 'RS256').jwk;
const ed = makeKey('ed', 'EdDSA').jwk;
const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' });
const privateEc = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

function vet(keys: unknown, algorithms: readonly string[] = ALL) {
  const skipped: [string | null, string][] = [];
  const vetted = vetKeys({ keys }, algorithms, (kid, reason) => skipped.push([kid, reason]));
  return { vetted, kids: [...vetted.keys()], skipped };
}

/** Rewrites bytes of one base64url member. */
const edited = (text: unknown, edit: (bytes: Buffer) => Buffer): string =>
  edit(Buffer.from(String(text), 'base64url')).toString('base64url');

describe('vetKeys', () => {
  it('takes keys of each kind, each for the algorithms that fit it and are listed', () => {
    const { vetted, skipped } = vet([
      ec,
      { ...rsa, alg: undefined },
      { ...ed, alg: undefined },
      makeKey('p384', 'ES384').jwk,
    ]);
    expect([...vetted].map(([kid, { algorithms }]) => [kid, [...algorithms]])).toStrictEqual([
      ['ec', ['ES256']],
      ['rsa', ['RS256', 'PS256']],
      ['ed', ['EdDSA', 'Ed25519']],
      ['p384', ['ES384']],
    ]);
    expect(skipped).toStrictEqual([]);
  });

  it.each([
    ['a private EC key', { ...privateEc, kid: 'x' }, 'holds private members'],
    ['an RSA key with one prime', { ...rsa, p: 'AQAB' }, 'holds private members'],
    ['a symmetric key', { kty: 'oct', kid: 'x', k: 'AAAA' }, 'holds private members'],
    ['a symmetric key without its value', { kty: 'oct', kid: 'x' }, 'is of a kind that is not used here (kty)'],
    ['a key for encryption', { ...ec, use: 'enc' }, 'is not for signatures (use)'],
    ['a key whose operations are others', { ...ec, key_ops: ['encrypt'] }, 'is not for verifying (key_ops)'],
    ['a key whose operations are a text', { ...ec, key_ops: 'verify' }, 'is not for verifying (key_ops)'],
    ['no kid', { ...ec, kid: undefined }, 'has no kid of 1 to 256 characters'],
    ['a kid that is a number', { ...ec, kid: 1 }, 'has no kid of 1 to 256 characters'],
    ['an endless kid', { ...ec, kid: 'k'.repeat(257) }, 'has no kid of 1 to 256 characters'],
    ['an alg that the list lacks', { ...rsa, alg: 'RS512' }, 'fits no algorithm that is allowed for it'],
    ['an alg of another kind of key', { ...ec, alg: 'RS256' }, 'fits no algorithm that is allowed for it'],
    ['an alg of another curve', { ...ec, alg: 'ES384' }, 'fits no algorithm that is allowed for it'],
    ['a curve that is not used', { ...ec, crv: 'secp256k1' }, 'is on a curve that is not used here'],
    ['coordinates of another curve', { ...ec, crv: 'P-384', alg: 'ES384' }, 'has 32 bytes in x, not 48'],
    ['a point that is not on the curve', { ...ec, y: edited(ec['y'], (y) => y.fill(1)) }, 'is not a valid public key'],
    ['x25519', { kty: 'OKP', crv: 'X25519', kid: 'x', x: ed['x'] }, 'is on a curve that is not used here'],
    ['padding in a member', { ...ec, x: `${String(ec['x'])}=` }, 'has no canonical base64url in x'],
    ['an RSA key of 1024 bits', { ...small, kid: 'x' }, 'has a modulus of 1024 bits, not 2048 to 8192'],
    [
      '1024 bits behind zeros',
      { ...small, kid: 'x', n: edited(small.n, (n) => Buffer.concat([Buffer.alloc(128), n])) },
      'has a modulus of 1024 bits, not 2048 to 8192',
    ],
    [
      'an RSA key of 16384 bits',
      { ...rsa, n: Buffer.alloc(2048, 0xff).toString('base64url') },
      'has a modulus of 16384 bits, not 2048 to 8192',
    ],
    ['e = 1', { ...rsa, e: 'AQ' }, 'has a weak public exponent'],
    ['e = 3', { ...rsa, e: 'Aw' }, 'has a weak public exponent'],
    ['e = 65536', { ...rsa, e: 'AQAA' }, 'has a weak public exponent'],
    ['an e of 65 bits', { ...rsa, e: 'AQAAAAAAAAAB' }, 'has an absurd public exponent'],
    ['e = 65538', { ...rsa, e: 'AQAC' }, 'has a weak public exponent'],
    [
      'an even modulus',
      { ...rsa, n: edited(rsa['n'], (n) => Buffer.concat([n.subarray(0, -1), Buffer.from([0])])) },
      'has an even modulus',
    ],
  ])('skips %s and keeps the others', (_name, bad, reason) => {
    const good = makeKey('good').jwk;
    const { kids, skipped } = vet([bad, good]);
    expect(kids).toStrictEqual(['good']);
    expect(skipped.map(([, said]) => said)).toStrictEqual([reason]);
  });

  it.each([
    '00'.repeat(32),
    `01${'00'.repeat(31)}`,
    `01${'00'.repeat(30)}80`,
    '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
    'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa',
    `ec${'ff'.repeat(30)}7f`,
    `ed${'ff'.repeat(30)}7f`,
    `ee${'ff'.repeat(31)}`,
  ])('skips the point of small order %s', (hex) => {
    const { kids, skipped } = vet([{ ...ed, x: Buffer.from(hex, 'hex').toString('base64url') }]);
    expect(kids).toStrictEqual([]);
    expect(skipped).toStrictEqual([['ed', 'has a point of small order: anybody can sign for it']]);
  });

  it('uses none of the keys that share a kid, also of three', () => {
    const twins = [makeKey('twin').jwk, makeKey('twin').jwk, makeKey('twin').jwk];
    const { kids, skipped } = vet([...twins, ec]);
    expect(kids).toStrictEqual(['ec']);
    expect(skipped).toStrictEqual([['twin', 'another key has the same kid']]);
  });

  it('refuses what is no key set, and more than 32 keys', () => {
    for (const document of [null, [], {}, { keys: {} }, { keys: ['x'] }, { keys: [null] }]) {
      expect(() => vetKeys(document, ALL, () => undefined)).toThrow('not a JWKS');
    }
    const many = Array.from({ length: MAX_KEYS + 1 }, (_, n) => ({ ...ec, kid: `k${n}` }));
    expect(vet(many.slice(1)).kids).toHaveLength(MAX_KEYS);
    expect(() => vet(many)).toThrow('at most 32 keys');
  });

  it('never says more of a key than its name', () => {
    const { skipped } = vet([{ ...privateEc, kid: 'x' }]);
    expect(JSON.stringify(skipped)).not.toContain(privateEc.d);
  });
});
