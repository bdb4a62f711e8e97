import type { SpiffeJwtSource } from '../../catalog/types.ts';
import { MayflyError } from '../../domain/errors.ts';
import { parseSpiffeId } from '../../domain/spiffe-id.ts';
import { refuseClaim, requireType, type Verifier } from './source.ts';

const HEADERS = new Set(['alg', 'kid', 'typ']);

/**
 * JWT-SVIDs (SPIFFE JWT-SVID §2 and §3). The trust domain's bundle decides which keys count; the id must lie in that
 * very domain, or one domain could speak for another.
 */
export const believeSpiffeJwt: Verifier<SpiffeJwtSource> = (source, token) => {
  requireType(token, [undefined, 'JWT', 'JOSE']);
  if (!Object.keys(token.header).every((name) => HEADERS.has(name))) {
    throw new MayflyError('workload_token_header_refused', 'A JWT-SVID has no headers but `alg`, `kid` and `typ`.');
  }
  const { sub } = token.claims;
  const id = typeof sub === 'string' ? parseSpiffeId(sub) : undefined;
  if (typeof sub !== 'string' || id === undefined || id.path === '')
    refuseClaim('sub', 'must be a SPIFFE ID with a path');
  if (id.trustDomain !== source.trustDomain) refuseClaim('sub', 'lies in another trust domain');
  return { subject: sub };
};
