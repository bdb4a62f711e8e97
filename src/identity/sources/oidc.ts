import { z } from 'zod';
import type { OidcSource } from '../../catalog/types.ts';
import { printable } from '../token-claims.ts';
import { readTokenClaims, refuseActor, refuseClaim, requireType, type Verifier } from './source.ts';

/** RFC 9068 §4 names both spellings. */
const ACCESS_TOKEN_TYPES = ['at+jwt', 'application/at+jwt'];
export const oidcTypes: readonly (string | undefined)[] = [undefined, 'JWT', ...ACCESS_TOKEN_TYPES];

const subjectSchema = printable(2048);

/** RFC 9068 §2.2; `iss`, `aud`, `sub` and `exp` are demanded of every token. */
const accessTokenSchema = z.object({ client_id: printable(2048), iat: z.number(), jti: printable(2048) });

/** Access tokens of an OIDC provider: which claim is the workload, and what else must hold, says the catalog. */
export const believeOidc: Verifier<OidcSource> = (source, token) => {
  const { claims } = token;
  if (source.tokenType === 'at+jwt') {
    // An ID token is never one of these: it says who logged in, not who may call (RFC 9068 §4).
    requireType(token, ACCESS_TOKEN_TYPES);
    readTokenClaims(accessTokenSchema, claims);
  } else {
    requireType(token, oidcTypes);
  }
  for (const [claim, value] of Object.entries(source.require ?? {})) {
    if (!Object.hasOwn(claims, claim) || claims[claim] !== value) refuseClaim(claim, 'is not what the catalog demands');
  }
  const claim = source.subjectClaim ?? 'sub';
  if (claim === 'sub') refuseActor(token);
  return { subject: readTokenClaims(z.object({ [claim]: subjectSchema }), claims)[claim] ?? '' };
};
