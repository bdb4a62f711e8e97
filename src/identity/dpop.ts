import { hash } from 'node:crypto';
import { compactVerify } from 'jose';
import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import { type CompactJws, decodeCompactJws, isJsonObject, readClaims } from './compact-jws.ts';
import { fieldErrors, numericDate, printable } from './token-claims.ts';
import type { Proof } from './types.ts';
import { vetPublicKey, type VettedKey } from './vet-keys.ts';

/** What proofs may be signed with. Told in `WWW-Authenticate` as `algs` (RFC 9449 §7.1). */
export const PROOF_ALGORITHMS: readonly string[] = ['ES256', 'ES384', 'EdDSA', 'Ed25519', 'PS256', 'RS256'];

/** How far `iat` may lie from our clock, either way, in seconds. DESIGN §4, Times. */
const WINDOW_SECONDS = 60;

const HEADERS = new Set(['alg', 'typ', 'jwk']);
const refusals = { malformed: 'proof_malformed', duplicate: 'proof_malformed' } as const;

/** RFC 9449 §4.2. Unknown claims are ignored. */
const claimsSchema = z.object({
  jti: printable(200),
  htm: z.string().max(32),
  htu: z.string().max(2048),
  iat: numericDate,
  ath: z.string().max(64),
  nonce: z.unknown().optional(),
});
/** Where the certificate of the connection is who calls, there is no token to be made for. */
const claimsWithoutToken = claimsSchema.extend({ ath: z.undefined('there is no token in this call').optional() });

/** The call that a proof must have been made for. */
export interface ProvenCall {
  readonly method: string;
  /** Our configured address and the path: what a Host header says of us counts for nothing. */
  readonly url: string;
  /** The access token that came with it. Null: none, the connection's certificate says who calls. */
  readonly token: string | null;
  readonly now: Date;
}

/**
 * Verifies the proof of possession that came with a call (RFC 9449 §4.3).
 * @param headers Every `DPoP` header of the call: there must be one.
 * @throws MayflyError 401 with the failing step's own code.
 */
export async function verifyProof(headers: readonly string[], call: ProvenCall): Promise<Proof> {
  const [text, another] = headers;
  if (text === undefined) throw new MayflyError('proof_missing');
  if (another !== undefined) throw new MayflyError('proof_malformed', 'There are two DPoP headers.');
  const jws = decodeCompactJws(text, refusals);
  if (jws.header['typ'] !== 'dpop+jwt') throw new MayflyError('proof_type_wrong');
  const { thumbprint } = await verifySignature(jws);
  return { jkt: thumbprint, ...verifyClaims(jws, call) };
}

/** By the key that the proof itself brings: who may use that key is said by `cnf`, elsewhere. */
async function verifySignature(jws: CompactJws): Promise<Omit<VettedKey, 'kid'>> {
  const { alg, jwk } = jws.header;
  if (typeof alg !== 'string' || !PROOF_ALGORITHMS.includes(alg)) throw new MayflyError('proof_algorithm_refused');
  if (!Object.keys(jws.header).every((name) => HEADERS.has(name))) throw new MayflyError('proof_header_refused');
  if (!isJsonObject(jwk)) throw new MayflyError('proof_key_refused', 'There is no `jwk`.');
  const vetted = vet(jwk, alg);
  try {
    await compactVerify(jws.text, vetted.key, { algorithms: [alg] });
  } catch (cause) {
    throw new MayflyError('proof_signature_invalid', undefined, { cause });
  }
  return vetted;
}

function vet(jwk: Parameters<typeof vetPublicKey>[0], alg: string): Omit<VettedKey, 'kid'> {
  try {
    return vetPublicKey(jwk, [alg]);
  } catch (error) {
    throw new MayflyError('proof_key_refused', error instanceof Error ? `The key ${error.message}.` : undefined);
  }
}

function verifyClaims(jws: CompactJws, call: ProvenCall): Pick<Proof, 'jti' | 'nonce'> {
  const parsed = (call.token === null ? claimsWithoutToken : claimsSchema).safeParse(readClaims(jws, refusals));
  if (!parsed.success) throw new MayflyError('proof_claims_invalid', undefined, { errors: fieldErrors(parsed.error) });
  const { jti, htm, htu, iat, ath, nonce } = parsed.data;
  if (htm !== call.method) throw new MayflyError('proof_method_wrong');
  const address = normalAddress(htu);
  if (address === null || address !== normalAddress(call.url)) throw new MayflyError('proof_address_wrong');
  if (Math.abs(call.now.getTime() / 1000 - iat) > WINDOW_SECONDS) throw new MayflyError('proof_time_wrong');
  if (call.token !== null && ath !== hash('sha256', call.token, 'base64url'))
    throw new MayflyError('proof_token_wrong');
  return { jti, nonce: typeof nonce === 'string' ? nonce : null };
}

/** The characters of RFC 3986 §2: the URL parser would drop or turn others silently. */
const URI = /^https?:\/\/[A-Za-z0-9._~:/?#[\]@!$&'()*+,;=%-]+$/i;

/** Without query and fragment, under the normal forms of RFC 3986 §6.2.2 and 6.2.3 that the URL parser makes. Null: no address. */
function normalAddress(text: string): string | null {
  if (!URI.test(text) || !URL.canParse(text)) return null;
  const url = new URL(text);
  url.search = '';
  url.hash = '';
  return url.href;
}
