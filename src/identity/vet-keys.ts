import { createPublicKey, hash, type JsonWebKeyInput, type KeyObject } from 'node:crypto';
import { z } from 'zod';
import { decodeBase64url, type JsonObject } from './compact-jws.ts';
import { bearsRocaMark } from './roca.ts';

export const MAX_KEYS = 32;
const MIN_RSA_BITS = 2048;
/** Verifying costs with the square of the size: beyond this a key is an attack, not a precaution. */
const MAX_RSA_BITS = 8192;
const MIN_RSA_EXPONENT = 65537n;
/** As long as the modulus it makes a verification a hundred times dearer (7.7 ms for 3072 bits, measured). OpenSSL bounds it so for larger keys. */
const MAX_RSA_EXPONENT = 2n ** 64n;

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'];
const RSA_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const CURVES = new Map([
  ['P-256', { algorithm: 'ES256', bytes: 32 }],
  ['P-384', { algorithm: 'ES384', bytes: 48 }],
  ['P-521', { algorithm: 'ES512', bytes: 66 }],
]);
const ED25519_ALGORITHMS = ['EdDSA', 'Ed25519'];
/**
 * Ed25519 points of small order in all their spellings but for the sign bit, in hex: under such a key one signature fits every message
 * (or one in eight), and anybody can write it. OpenSSL takes them.
 */
const SMALL_ORDER: ReadonlySet<string> = new Set([
  '00'.repeat(32),
  `01${'00'.repeat(31)}`,
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  `ec${'ff'.repeat(30)}7f`,
  `ed${'ff'.repeat(30)}7f`,
  `ee${'ff'.repeat(30)}7f`,
]);

/** A public key that may be believed, for the algorithms that fit it and stand on its issuer's list. */
export interface VettedKey {
  readonly kid: string;
  readonly algorithms: ReadonlySet<string>;
  readonly key: KeyObject;
  /** RFC 7638, by SHA-256, in base64url. */
  readonly thumbprint: string;
}

export type KeySkipped = (kid: string | null, reason: string) => void;

const keySetSchema = z.object({ keys: z.array(z.record(z.string(), z.unknown())).max(MAX_KEYS) });

/**
 * The usable keys of a JWKS (RFC 7517), by `kid`. jose would take a ROCA key or RSA with e = 1, so each key is
 * looked at here. A key that cannot be used is skipped and told to `skipped`; of keys that share a `kid` none is used.
 * @throws Error when the document is no key set or has more than 32 keys.
 */
export function vetKeys(
  document: unknown,
  algorithms: readonly string[],
  skipped: KeySkipped,
): ReadonlyMap<string, VettedKey> {
  const parsed = keySetSchema.safeParse(document);
  if (!parsed.success) throw new Error(`not a JWKS with at most ${MAX_KEYS} keys`);
  const vetted = new Map<string, VettedKey>();
  const ambiguous = new Set<string>();
  for (const jwk of parsed.data.keys) {
    const kid = typeof jwk['kid'] === 'string' ? jwk['kid'].slice(0, 256) : null;
    try {
      const key = vetKey(jwk, algorithms);
      if (vetted.has(key.kid)) ambiguous.add(key.kid);
      vetted.set(key.kid, key);
    } catch (error) {
      skipped(kid, error instanceof Error ? error.message : 'not readable');
    }
  }
  for (const kid of ambiguous) {
    vetted.delete(kid);
    skipped(kid, 'another key has the same kid');
  }
  return vetted;
}

function vetKey(jwk: JsonObject, algorithms: readonly string[]): VettedKey {
  const { kid } = jwk;
  if (typeof kid !== 'string' || kid.length === 0 || kid.length > 256)
    throw new Error('has no kid of 1 to 256 characters');
  return { kid, ...vetPublicKey(jwk, algorithms) };
}

/**
 * One public key that may be believed, whoever brings it.
 * @throws Error that says what is wrong with it.
 */
export function vetPublicKey(jwk: JsonObject, algorithms: readonly string[]): Omit<VettedKey, 'kid'> {
  if (holdsPrivateMembers(jwk)) throw new Error('holds private members');
  const { use, key_ops: operations, alg } = jwk;
  if (use !== undefined && use !== 'sig') throw new Error('is not for signatures (use)');
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) {
    throw new Error('is not for verifying (key_ops)');
  }
  const { publicJwk, fits } = readKey(jwk);
  const allowed = fits.filter((name) => algorithms.includes(name) && (alg === undefined || alg === name));
  if (allowed.length === 0) throw new Error('fits no algorithm that is allowed for it');
  return { algorithms: new Set(allowed), key: importKey(publicJwk), thumbprint: thumbprintOf(publicJwk) };
}

export function holdsPrivateMembers(jwk: JsonObject): boolean {
  return PRIVATE_MEMBERS.some((name) => Object.hasOwn(jwk, name));
}

/** Only the members that make the key: nothing else in a JWK reaches OpenSSL. */
export type PublicJwk = JsonWebKeyInput['key'];

interface PublicKey {
  readonly publicJwk: PublicJwk;
  readonly fits: readonly string[];
}

function readKey(jwk: JsonObject): PublicKey {
  switch (jwk['kty']) {
    case 'RSA':
      return readRsa(jwk);
    case 'EC':
      return readEc(jwk);
    case 'OKP':
      return readOkp(jwk);
    default:
      throw new Error('is of a kind that is not used here (kty)');
  }
}

function readRsa(jwk: JsonObject): PublicKey {
  const n = member(jwk, 'n');
  const e = member(jwk, 'e');
  const modulus = toInteger(n.bytes);
  const exponent = toInteger(e.bytes);
  const bits = modulus.toString(2).length;
  if (bits < MIN_RSA_BITS || bits > MAX_RSA_BITS) {
    throw new Error(`has a modulus of ${bits} bits, not ${MIN_RSA_BITS} to ${MAX_RSA_BITS}`);
  }
  if (exponent < MIN_RSA_EXPONENT || exponent % 2n === 0n) throw new Error('has a weak public exponent');
  if (exponent > MAX_RSA_EXPONENT) throw new Error('has an absurd public exponent');
  if (modulus % 2n === 0n) throw new Error('has an even modulus');
  if (bearsRocaMark(modulus)) throw new Error('was made by a faulty generator (ROCA)');
  return { publicJwk: { kty: 'RSA', n: n.text, e: e.text }, fits: RSA_ALGORITHMS };
}

function readEc(jwk: JsonObject): PublicKey {
  const crv = jwk['crv'];
  const curve = typeof crv === 'string' ? CURVES.get(crv) : undefined;
  if (typeof crv !== 'string' || !curve) throw new Error('is on a curve that is not used here');
  const x = member(jwk, 'x', curve.bytes);
  const y = member(jwk, 'y', curve.bytes);
  return { publicJwk: { kty: 'EC', crv, x: x.text, y: y.text }, fits: [curve.algorithm] };
}

function readOkp(jwk: JsonObject): PublicKey {
  if (jwk['crv'] !== 'Ed25519') throw new Error('is on a curve that is not used here');
  const x = member(jwk, 'x', 32);
  const point = Buffer.from(x.bytes);
  point.writeUInt8(point.readUInt8(31) & 0x7f, 31);
  if (SMALL_ORDER.has(point.toString('hex'))) throw new Error('has a point of small order: anybody can sign for it');
  return { publicJwk: { kty: 'OKP', crv: 'Ed25519', x: x.text }, fits: ED25519_ALGORITHMS };
}

/** One member as canonical base64url. @throws Error */
export function member(
  jwk: JsonObject,
  name: string,
  length?: number,
): { readonly text: string; readonly bytes: Buffer } {
  const text = jwk[name];
  const bytes = typeof text === 'string' && text.length > 0 ? decodeBase64url(text) : undefined;
  if (typeof text !== 'string' || !bytes) throw new Error(`has no canonical base64url in ${name}`);
  if (length !== undefined && bytes.length !== length)
    throw new Error(`has ${bytes.length} bytes in ${name}, not ${length}`);
  return { text, bytes };
}

/** RFC 7638 §3: the members that make the key, in the order of their names, without white space. */
export function thumbprintOf(publicJwk: PublicJwk): string {
  const members = Object.entries(publicJwk).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return hash('sha256', JSON.stringify(Object.fromEntries(members)), 'base64url');
}

function toInteger(bytes: Buffer): bigint {
  return BigInt(`0x${bytes.toString('hex')}`);
}

/** @throws Error where it is no key at all. */
export function importKey(key: PublicJwk): KeyObject {
  try {
    return createPublicKey({ key, format: 'jwk' });
  } catch (cause) {
    // OpenSSL refuses, among others, a point that is not on its curve.
    throw new Error('is not a valid public key', { cause });
  }
}
