import { generateKeyPairSync, type JsonWebKey } from 'node:crypto';
import { compactDecrypt, decodeProtectedHeader } from 'jose';
import { describe, expect, it } from 'vitest';
import { type DeliveryKey, readDeliveryKey, requireDelivery, seal } from './delivery-key.ts';
import { refusal } from './testing/trust.ts';

const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const x25519 = generateKeyPairSync('x25519');
const publicOf = ({ publicKey }: Pick<typeof p256, 'publicKey'>): JsonWebKey => publicKey.export({ format: 'jwk' });
const P256 = publicOf(p256);
const X25519 = publicOf(x25519);
const flipped = (text = ''): string => (text.startsWith('A') ? 'B' : 'A') + text.slice(1);

describe('a key to seal to', () => {
  it.each<readonly [name: string, jwk: Record<string, unknown>]>([
    ['on P-256', P256],
    ['on X25519', X25519],
    ['for encryption', { ...P256, use: 'enc' }],
    ['for the one algorithm', { ...X25519, alg: 'ECDH-ES+A256KW' }],
    ['of WebCrypto', { ...P256, key_ops: [], ext: true }],
    ['for deriving', { ...P256, key_ops: ['deriveBits', 'deriveKey'] }],
    ['with a name', { ...P256, kid: 'mine' }],
  ])('is taken %s', (_name, jwk) => {
    expect(readDeliveryKey(jwk).thumbprint).toMatch(/^[\w-]{43}$/);
  });

  it.each<readonly [name: string, jwk: Record<string, unknown>, says: RegExp]>([
    ['with its private part', p256.privateKey.export({ format: 'jwk' }), /private members/],
    ['with a private part of another kind', { ...X25519, k: 'AA' }, /private members/],
    ['on P-384', publicOf(generateKeyPairSync('ec', { namedCurve: 'P-384' })), /neither on P-256 nor on X25519/],
    ['on secp256k1', publicOf(generateKeyPairSync('ec', { namedCurve: 'secp256k1' })), /neither on/],
    ['on Ed25519', publicOf(generateKeyPairSync('ed25519')), /neither on/],
    ['on X448', publicOf(generateKeyPairSync('x448')), /neither on/],
    ['of RSA', publicOf(generateKeyPairSync('rsa', { modulusLength: 2048 })), /neither on/],
    ['that is a secret', { kty: 'oct', k: 'AAAA' }, /private members/],
    ['P-256 by the name of another kind', { ...P256, kty: 'OKP' }, /neither on/],
    ['without a kind', {}, /neither on/],
    ['for signatures', { ...P256, use: 'sig' }, /not for encryption/],
    ['for signing', { ...P256, key_ops: ['verify'] }, /not for key agreement/],
    ['with operations that are no list', { ...P256, key_ops: 'deriveBits' }, /not for key agreement/],
    ['for direct agreement', { ...P256, alg: 'ECDH-ES' }, /another algorithm/],
    ['for a lesser wrap', { ...P256, alg: 'ECDH-ES+A128KW' }, /another algorithm/],
    ['for RSA', { ...P256, alg: 'RSA-OAEP' }, /another algorithm/],
    ['for none', { ...P256, alg: 'none' }, /another algorithm/],
    ['off its curve', { ...P256, y: flipped(P256.y) }, /not a valid public key/],
    ['without y', { ...P256, y: undefined }, /no canonical base64url in y/],
    ['with padding', { ...P256, x: `${P256.x}=` }, /no canonical base64url in x/],
    ['too short', { ...X25519, x: 'AAAA' }, /3 bytes in x, not 32/],
    ['of low order', { ...X25519, x: Buffer.alloc(32).toString('base64url') }, /not a valid public key/],
  ])('is refused %s', (_name, jwk, says) => {
    expect(() => readDeliveryKey(jwk)).toThrow(says);
    expect(() => readDeliveryKey(jwk)).toThrow(expect.objectContaining({ code: 'delivery_key_refused', status: 422 }));
  });

  it('must be one that the signed task names', async () => {
    const key = readDeliveryKey(P256);
    const task = (keyThumbprint: string | null, deliveryThumbprint: string | null = null) => ({
      keyThumbprint,
      deliveryThumbprint,
    });
    const required = async (given: DeliveryKey | null, of: ReturnType<typeof task>, demand: 'required' | 'optional') =>
      await refusal(Promise.resolve().then(() => requireDelivery(given, of, { sealedDelivery: demand })));
    expect(await required(key, task(key.thumbprint), 'required')).toBe('accepted');
    expect(await required(key, task('other', key.thumbprint), 'optional')).toBe('accepted');
    expect(await required(key, task('other', 'another'), 'optional')).toBe('delivery_key_wrong');
    expect(await required(key, task(null), 'optional')).toBe('delivery_key_wrong');
    expect(await required(null, task(key.thumbprint), 'optional')).toBe('accepted');
    expect(await required(null, task(key.thumbprint), 'required')).toBe('delivery_required');
  });
});

describe('a sealed credential', () => {
  const told = { grantId: 'grt_1', expiresAt: new Date('2026-11-23T12:00:00Z') };

  it.each([
    ['P-256', p256, P256],
    ['X25519', x25519, X25519],
  ] as const)(
    'opens with the private part of its %s key, and tells its grant and end unopened',
    async (_name, pair, jwk) => {
      const key = readDeliveryKey(jwk);
      const sealed = await seal(key, { password: 'canary' }, told);
      expect(decodeProtectedHeader(sealed)).toMatchObject({
        alg: 'ECDH-ES+A256KW',
        enc: 'A256GCM',
        kid: key.thumbprint,
        grant_id: 'grt_1',
        expires_at: '2026-11-23T12:00:00.000Z',
      });
      const { plaintext } = await compactDecrypt(sealed, pair.privateKey);
      expect(JSON.parse(new TextDecoder().decode(plaintext))).toEqual({ password: 'canary' });
      expect(Buffer.from(sealed, 'latin1').includes('canary')).toBe(false);
    },
  );

  it('opens with no other key, and not when its header was changed', async () => {
    const sealed = await seal(readDeliveryKey(P256), { password: 'canary' }, told);
    const other = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    await expect(compactDecrypt(sealed, other)).rejects.toThrow('decryption operation failed');
    const [header = '', ...rest] = sealed.split('.');
    const changed = Buffer.from(Buffer.from(header, 'base64url').toString().replace('grt_1', 'grt_2')).toString(
      'base64url',
    );
    await expect(compactDecrypt([changed, ...rest].join('.'), p256.privateKey)).rejects.toThrow(
      'decryption operation failed',
    );
  });
});
