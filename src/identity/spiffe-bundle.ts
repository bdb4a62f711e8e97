import { z } from 'zod';
import type { JsonObject } from './compact-jws.ts';

/** A bundle asks to be looked at again this often; beyond these bounds it is not obeyed, in milliseconds. */
export const MIN_REFRESH_MS = 10_000;
export const MAX_REFRESH_MS = 30 * 60_000;

const entrySchema = z.looseObject({
  use: z.unknown().optional(),
  kid: z.unknown().optional(),
  x5c: z.unknown().optional(),
});
const bundleSchema = z.object({
  // No member is not the same as no keys (SPIFFE Trust Domain and Bundle §4.1.1).
  keys: z.array(entrySchema).max(256),
  spiffe_sequence: z.int().min(0).optional(),
  spiffe_refresh_hint: z.number().min(0).optional(),
});

export interface SpiffeBundle {
  /** For JWT-SVIDs, as an ordinary JWKS. None: every JWT-SVID of the domain is invalid. */
  readonly jwks: { readonly keys: readonly JsonObject[] };
  /** For X.509-SVIDs, as DER. None: every X.509-SVID of the domain is invalid. */
  readonly authorities: readonly Buffer[];
  readonly sequence: number | undefined;
  /** How long it is fresh, within the bounds; undefined: the bundle does not say. */
  readonly freshMs: number | undefined;
}

/**
 * Reads a SPIFFE bundle (SPIFFE Trust Domain and Bundle §4). Entries of a `use` that is unknown here are ignored, so a
 * plain JWKS, without `use`, has no key for JWT-SVIDs.
 * @throws Error for a document that is no bundle, or whose entries break the rules of their `use`.
 */
export function readSpiffeBundle(document: unknown): SpiffeBundle {
  const parsed = bundleSchema.safeParse(document);
  if (!parsed.success) throw new Error('not a SPIFFE bundle');
  const { keys, spiffe_sequence: sequence, spiffe_refresh_hint: hint } = parsed.data;
  const authorities: Buffer[] = [];
  for (const { use, kid, x5c } of keys) {
    if (use === 'jwt-svid' && typeof kid !== 'string') throw new Error('a jwt-svid entry has no kid');
    if (use === 'x509-svid') {
      const der = z.tuple([z.string()]).safeParse(x5c);
      if (!der.success) throw new Error('an x509-svid entry has not exactly one certificate');
      authorities.push(Buffer.from(der.data[0], 'base64'));
    }
  }
  return {
    jwks: { keys: keys.filter(({ use }) => use === 'jwt-svid').map((entry) => ({ ...entry, use: 'sig' })) },
    authorities,
    sequence,
    freshMs: hint === undefined ? undefined : Math.min(Math.max(hint * 1000, MIN_REFRESH_MS), MAX_REFRESH_MS),
  };
}
