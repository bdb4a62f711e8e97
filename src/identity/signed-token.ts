import { compactVerify } from 'jose';
import type { TaskIssuer } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { type CompactJws, decodeCompactJws, type JsonObject, readClaims } from './compact-jws.ts';
import type { KeyOwner, KeySets } from './key-sets.ts';
import type { Found, KeySet, KeySource } from './key-source.ts';
import type { Refusals } from './refusals.ts';
import type { VettedKey } from './vet-keys.ts';

/** What tells one kind of token from all others (RFC 8725 §3.11 and 3.12). */
export interface TokenKind {
  readonly refusals: Refusals;
  typeFits(typ: unknown): boolean;
  headerFits(name: string): boolean;
}

export type Issuer = KeyOwner & Pick<TaskIssuer, 'issuer'>;

export interface SignedToken<I extends Issuer> {
  readonly issuer: I;
  readonly header: JsonObject;
  readonly claims: JsonObject;
  /** The decoded payload. */
  readonly payload: Buffer;
  /** The key set by which it was believed. */
  readonly keySet: KeySet;
}

/**
 * The steps that every token must pass before its claims mean anything: grammar, kind, issuer, algorithm, header,
 * key, signature. `iss` chooses the issuer among those given, and nothing else in the token chooses anything, unless
 * `find` says otherwise.
 * @throws MayflyError with the failing step's code of `kind.refusals`, or `keys_unavailable`.
 */
export async function verifySigned<I extends Issuer>(
  text: string,
  kind: TokenKind,
  issuers: readonly I[],
  keySets: KeySets,
  find: (claims: JsonObject, issuers: readonly I[]) => I | undefined = (stated) => findIssuer(stated['iss'], issuers),
): Promise<SignedToken<I>> {
  const { refusals } = kind;
  const jws = decodeCompactJws(text, refusals);
  const claims = readClaims(jws, refusals);
  if (!kind.typeFits(jws.header['typ'])) throw new MayflyError(refusals.type);
  const issuer = find(claims, issuers);
  if (!issuer) throw new MayflyError(refusals.issuer);
  const { alg } = jws.header;
  if (typeof alg !== 'string' || !issuer.algorithms.includes(alg)) throw new MayflyError(refusals.algorithm);
  if (!Object.keys(jws.header).every((name) => kind.headerFits(name))) throw new MayflyError(refusals.header);
  const { set } = await verifySignature(jws, keySets.of(issuer), refusals);
  return { issuer, header: jws.header, claims, payload: jws.payload, keySet: set };
}

/**
 * Key and signature alone. The key decides which algorithms it may be used with, not the header (RFC 8725 §3.1).
 * @throws MayflyError `refusals.key`, `.algorithm`, `.signature`, or `keys_unavailable`.
 */
export async function verifySignature(jws: CompactJws, keys: KeySource, refusals: Refusals): Promise<Found<VettedKey>> {
  const { alg, kid } = jws.header;
  if (typeof kid !== 'string' || kid === '') throw new MayflyError(refusals.key);
  const found = await keys.search((set) => set.keys.get(kid));
  if (!found) throw new MayflyError(refusals.key);
  const { algorithms, key } = found.found;
  if (typeof alg !== 'string' || !algorithms.has(alg)) throw new MayflyError(refusals.algorithm);
  try {
    await compactVerify(jws.text, key, { algorithms: [alg] });
  } catch (cause) {
    throw new MayflyError(refusals.signature, undefined, { cause });
  }
  return found;
}

/** Two issuers of one name are ambiguous: the catalog refuses them, and so does this. */
export function findIssuer<I extends Issuer>(iss: unknown, issuers: readonly I[]): I | undefined {
  const [found, another] = issuers.filter(({ issuer }) => issuer === iss);
  return another ? undefined : found;
}
