import { join } from 'node:path';
import { calculateJwkThumbprint, type CryptoKey, exportJWK, generateKeyPair, importJWK } from 'jose';
import { z } from 'zod';
import { Secret } from '../../domain/secret.ts';
import { DevError } from './dev-error.ts';
import { openPrivateFolder, readSecretFile, writeSecretFile } from './dev-folder.ts';

export const issuerNames = ['orchestrator', 'workloads', 'operators'] as const;
export type IssuerName = (typeof issuerNames)[number];

const coordinate = z.string().regex(/^[A-Za-z0-9_-]{43}$/);
const privateJwk = z.strictObject({
  kty: z.literal('EC'),
  crv: z.literal('P-256'),
  x: coordinate,
  y: coordinate,
  d: coordinate,
});

export interface IssuerKey {
  /** RFC 7638 thumbprint. */
  readonly kid: string;
  readonly sign: CryptoKey;
  /** As it stands in the JWKS. */
  readonly publicJwk: Readonly<Record<string, string>>;
}

/**
 * The ES256 key of one dev issuer: made once, kept in `issuer/<name>.jwk` (0600), the same at every start.
 * @throws DevError `secret_file_refused` also for a file that holds no such key.
 */
export async function keepIssuerKey(dir: string, name: IssuerName): Promise<IssuerKey> {
  const file = join(await openPrivateFolder(join(dir, 'issuer')), `${name}.jwk`);
  const kept = await readSecretFile(file);
  if (kept !== undefined) return openKey(file, kept);
  const made = await exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey);
  const secret = new Secret(JSON.stringify(made));
  await writeSecretFile(file, secret);
  return openKey(file, secret);
}

async function openKey(file: string, secret: Secret<string>): Promise<IssuerKey> {
  try {
    const jwk = privateJwk.parse(JSON.parse(secret.reveal()));
    const { d: _, ...open } = jwk;
    const kid = await calculateJwkThumbprint(open);
    const sign = await importJWK(jwk, 'ES256');
    if (sign instanceof Uint8Array) throw new TypeError('not a key pair');
    return { kid, sign, publicJwk: { ...open, kid, alg: 'ES256', use: 'sig' } };
  } catch {
    // Without the cause: a parse error quotes what it read.
    throw new DevError(
      'secret_file_refused',
      `${file} holds no P-256 private key as JWK. Remove it to have a new one made.`,
    );
  }
}
