import { createPrivateKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { compactVerify, SignJWT } from 'jose';
import { z } from 'zod';
import { ConfigError } from '../config.ts';
import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { decodeCompactJws, readClaims } from './compact-jws.ts';
import { thumbprintOf, type VettedKey, vetKeys } from './vet-keys.ts';

const TYPE = 'mayfly-catalog+jwt';
const ALGORITHMS = ['ES256', 'EdDSA'];
/** Between the signing and the apply. What is in force stays so. */
const MAX_AGE_SECONDS = 86_400;
const FUTURE_SECONDS = 30;

/** What whoever vouches for a catalog says of it. */
export interface CatalogManifest {
  readonly digest: string;
  /** As in `catalog.yaml`. */
  readonly serial: number | null;
  readonly commit: string | null;
  readonly iat: number;
}

const manifestSchema = z.object({
  digest: z.string(),
  serial: z.int().nullable(),
  commit: z.string().nullable(),
  iat: z.int(),
});

const invalid = { malformed: 'catalog_signature_invalid', duplicate: 'catalog_signature_invalid' } as const;

/** The keys of those who vouch for catalogs. */
export class CatalogKeys {
  readonly #keys: ReadonlyMap<string, VettedKey>;

  /** @param document A JWKS: P-256 or Ed25519, each with its `kid`. @throws Error that says what is wrong with it. */
  constructor(document: unknown) {
    const skipped: string[] = [];
    this.#keys = vetKeys(document, ALGORITHMS, (kid, reason) => skipped.push(`${kid ?? 'a key'} ${reason}`));
    if (skipped.length > 0) throw new Error(skipped.join('; '));
    if (this.#keys.size === 0) throw new Error('holds no key');
  }

  /** From a file. @throws Error that says what is wrong with it, without its text. */
  static read(path: string): CatalogKeys {
    let document: unknown;
    try {
      document = JSON.parse(readFileSync(path, 'utf8'));
    } catch (cause) {
      throw new Error('can not be read as JSON', { cause });
    }
    return new CatalogKeys(document);
  }

  /**
   * That somebody with one of the keys vouches for this very catalog.
   * @throws MayflyError `catalog_signature_missing`, `catalog_signature_invalid`, `catalog_signature_mismatch`
   */
  async verify(
    signature: string | null,
    { digest, changeControl }: Pick<Catalog, 'digest' | 'changeControl'>,
  ): Promise<CatalogManifest> {
    if (signature === null) throw new MayflyError('catalog_signature_missing');
    const manifest = await this.#read(signature);
    if (manifest.digest !== digest) throw mismatch(`digest: it is for ${manifest.digest}, and this is ${digest}`);
    if (manifest.serial !== changeControl.serial) throw mismatch('serial: it is another one than in catalog.yaml');
    return manifest;
  }

  async #read(text: string): Promise<CatalogManifest> {
    const jws = decodeCompactJws(text, invalid);
    const { alg, typ, kid, ...more } = jws.header;
    if (typ !== TYPE) throw refused(`typ must be ${TYPE}`);
    if (Object.keys(more).length > 0) throw refused('its header may hold alg, typ and kid alone');
    const key = typeof kid === 'string' ? this.#keys.get(kid) : undefined;
    if (key === undefined) throw refused('its key is none of those in MAYFLY_CATALOG_KEYS');
    if (typeof alg !== 'string' || !key.algorithms.has(alg)) throw refused('its algorithm does not fit its key');
    try {
      await compactVerify(text, key.key, { algorithms: [alg] });
    } catch (cause) {
      throw refused('the signature does not hold', cause);
    }
    const manifest = manifestSchema.safeParse(readClaims(jws, invalid));
    if (!manifest.success) throw refused('it must say digest, serial, commit and iat');
    return manifest.data;
  }
}

/** Those that the settings name; null: nobody is asked to vouch. @throws ConfigError */
export function readCatalogKeys({
  catalog_keys: path,
}: {
  readonly catalog_keys?: string | undefined;
}): CatalogKeys | null {
  if (path === undefined) return null;
  try {
    return CatalogKeys.read(path);
  } catch (error) {
    throw new ConfigError([`MAYFLY_CATALOG_KEYS: ${error instanceof Error ? error.message : 'can not be read'}`]);
  }
}

/** @throws MayflyError `catalog_signature_old` for one that was made long ago, or is of tomorrow. */
export function requireFresh({ iat }: CatalogManifest, now: Date): void {
  const age = now.getTime() / 1000 - iat;
  if (age > MAX_AGE_SECONDS || age < -FUTURE_SECONDS) throw new MayflyError('catalog_signature_old');
}

/**
 * Vouches for a catalog.
 * @param key A private key, P-256 or Ed25519: a JWK, or PEM.
 * @returns A compact JWS.
 * @throws Error when it is no such key; it says nothing of the key.
 */
export async function signCatalog(
  key: string,
  { digest, changeControl }: Pick<Catalog, 'digest' | 'changeControl'>,
  commit: string | null,
  now: Date,
): Promise<string> {
  const { privateKey, algorithm, kid } = readPrivateKey(key);
  return await new SignJWT({ digest, serial: changeControl.serial, commit })
    .setProtectedHeader({ alg: algorithm, typ: TYPE, kid })
    .setIssuedAt(now)
    .sign(privateKey);
}

function readPrivateKey(text: string): { privateKey: KeyObject; algorithm: string; kid: string } {
  let privateKey: KeyObject;
  let kid: unknown;
  try {
    const jwk = text.trimStart().startsWith('{') ? z.record(z.string(), z.string()).parse(JSON.parse(text)) : undefined;
    kid = jwk?.['kid'];
    privateKey = jwk === undefined ? createPrivateKey(text) : createPrivateKey({ key: jwk, format: 'jwk' });
  } catch {
    // Its own message may quote the key.
    throw new Error('The key can not be read: it must be a private key, as JWK or PEM.');
  }
  const { kty = '', crv = '', x = '', y } = privateKey.export({ format: 'jwk' });
  if (!['P-256', 'Ed25519'].includes(crv)) throw new Error('The key must be P-256 or Ed25519.');
  const publicJwk = { kty, crv, x, ...(y === undefined ? {} : { y }) };
  return {
    privateKey,
    algorithm: crv === 'P-256' ? 'ES256' : 'EdDSA',
    kid: typeof kid === 'string' ? kid : thumbprintOf(publicJwk),
  };
}

function refused(why: string, cause?: unknown): MayflyError {
  return new MayflyError(
    'catalog_signature_invalid',
    `Of the signature, ${why}.`,
    cause === undefined ? {} : { cause },
  );
}

function mismatch(why: string): MayflyError {
  return new MayflyError('catalog_signature_mismatch', `${why[0]?.toUpperCase()}${why.slice(1)}.`);
}
