import { generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import type { JsonObject } from '../compact-jws.ts';

export interface TestKey {
  readonly kid: string;
  readonly alg: string;
  readonly privateKey: KeyObject;
  readonly jwk: JsonObject;
}

export function makeKey(kid: string, alg: 'ES256' | 'ES384' | 'RS256' | 'EdDSA' = 'ES256'): TestKey {
  const { privateKey, publicKey } = pair(alg);
  return { kid, alg, privateKey, jwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } };
}

function pair(alg: string): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (alg) {
    case 'RS256':
      return generateKeyPairSync('rsa', { modulusLength: 2048 });
    case 'EdDSA':
      return generateKeyPairSync('ed25519');
    default:
      return generateKeyPairSync('ec', { namedCurve: alg === 'ES384' ? 'P-384' : 'P-256' });
  }
}

/** A compact JWS over exactly these texts or bytes, however wrong they are. */
export function signText(key: TestKey, header: string | Buffer, payload: string | Buffer): string {
  const input = `${Buffer.from(header).toString('base64url')}.${Buffer.from(payload).toString('base64url')}`;
  return `${input}.${signInput(key, input).toString('base64url')}`;
}

export function signInput(key: TestKey, input: string): Buffer {
  const digest = key.alg === 'EdDSA' ? null : key.alg === 'ES384' ? 'sha384' : 'sha256';
  return sign(digest, Buffer.from(input), { key: key.privateKey, dsaEncoding: 'ieee-p1363' });
}

export function signToken(key: TestKey, claims: JsonObject, header: JsonObject = {}): string {
  return signText(key, JSON.stringify({ alg: key.alg, kid: key.kid, ...header }), JSON.stringify(claims));
}
