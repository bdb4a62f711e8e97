import { diffieHellman, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { CompactEncrypt } from 'jose';
import { MayflyError } from '../domain/errors.ts';
import type { Task } from '../domain/task.ts';
import type { JsonObject } from './compact-jws.ts';
import { holdsPrivateMembers, importKey, member, type PublicJwk, thumbprintOf } from './vet-keys.ts';

const ALG = 'ECDH-ES+A256KW';
const DERIVING: ReadonlySet<unknown> = new Set(['deriveKey', 'deriveBits']);

/** A public key that credentials can be sealed to. Whose it is says the task. */
export interface DeliveryKey {
  /** RFC 7638, by SHA-256, in base64url. */
  readonly thumbprint: string;
  readonly key: KeyObject;
}

/** What a sealed credential says of itself without being opened. */
export interface SealedFor {
  readonly grantId: string;
  readonly expiresAt: Date;
}

/**
 * The key that a caller wants its credential sealed to: P-256 or X25519, public alone.
 * @throws MayflyError `delivery_key_refused` that says what is wrong with it.
 */
export function readDeliveryKey(jwk: JsonObject): DeliveryKey {
  try {
    return vet(jwk);
  } catch (error) {
    throw new MayflyError('delivery_key_refused', error instanceof Error ? `The key ${error.message}.` : undefined);
  }
}

function vet(jwk: JsonObject): DeliveryKey {
  if (holdsPrivateMembers(jwk)) throw new Error('holds private members: make a new one, this one is known now');
  const { use, alg, key_ops: operations } = jwk;
  if (use !== undefined && use !== 'enc') throw new Error('is not for encryption (use)');
  if (alg !== undefined && alg !== ALG) throw new Error(`is for another algorithm than ${ALG} (alg)`);
  // A public key of WebCrypto's has none.
  const fits = Array.isArray(operations) && operations.every((name: unknown) => DERIVING.has(name));
  if (operations !== undefined && !fits) throw new Error('is not for key agreement (key_ops)');
  const publicJwk = readPublic(jwk);
  const key = importKey(publicJwk);
  if (publicJwk['kty'] === 'OKP') refuseLowOrder(key);
  return { thumbprint: thumbprintOf(publicJwk), key };
}

const trial = generateKeyPairSync('x25519').privateKey;

/** RFC 7748 §6.1: with such a point anybody knows the secret. OpenSSL notices, but only when it is used. */
function refuseLowOrder(publicKey: KeyObject): void {
  try {
    diffieHellman({ privateKey: trial, publicKey });
  } catch (cause) {
    throw new Error('is not a valid public key', { cause });
  }
}

function readPublic(jwk: JsonObject): PublicJwk {
  const { kty, crv } = jwk;
  const x = () => member(jwk, 'x', 32).text;
  if (kty === 'EC' && crv === 'P-256') return { kty, crv, x: x(), y: member(jwk, 'y', 32).text };
  if (kty === 'OKP' && crv === 'X25519') return { kty, crv, x: x() };
  throw new Error('is neither on P-256 nor on X25519');
}

/**
 * DPoP does not sign the body: a key that only the body names could be anybody's.
 * @throws MayflyError `delivery_key_wrong` unless the signed task names this very key, `delivery_required` where there is none and the
 * catalog demands one.
 */
export function requireDelivery(
  key: DeliveryKey | null,
  task: Pick<Task, 'keyThumbprint' | 'deliveryThumbprint'>,
  { sealedDelivery }: { readonly sealedDelivery: 'required' | 'optional' },
): void {
  if (key === null) {
    if (sealedDelivery === 'required') throw new MayflyError('delivery_required');
    return;
  }
  if (key.thumbprint !== task.keyThumbprint && key.thumbprint !== task.deliveryThumbprint) {
    throw new MayflyError('delivery_key_wrong');
  }
}

/** The credential as compact JWE (RFC 7516): ECDH-ES with A256KW (RFC 7518 §4.6), A256GCM. */
export async function seal(key: DeliveryKey, content: object, { grantId, expiresAt }: SealedFor): Promise<string> {
  return await new CompactEncrypt(Buffer.from(JSON.stringify(content)))
    .setProtectedHeader({
      ...{ alg: ALG, enc: 'A256GCM', cty: 'json', kid: key.thumbprint },
      ...{ grant_id: grantId, expires_at: expiresAt.toISOString() },
    })
    .encrypt(key.key);
}
