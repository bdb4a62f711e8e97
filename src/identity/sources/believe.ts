import type { TokenSource } from '../../catalog/types.ts';
import type { VerifyContext } from '../types.ts';
import { believeGithubActions } from './github-actions.ts';
import { believeKubernetes } from './kubernetes.ts';
import { believeOidc } from './oidc.ts';
import type { NamedWorkload, SourceToken, TokenReviews } from './source.ts';
import { believeSpiffeJwt } from './spiffe-jwt.ts';

/**
 * The rules of the source's own kind, which the catalog says and never the token.
 * @throws MayflyError 401 with the failing step's code, or `keys_unavailable`.
 */
export async function believe(
  source: TokenSource,
  token: SourceToken,
  context: VerifyContext,
  reviews: TokenReviews,
): Promise<NamedWorkload> {
  switch (source.kind) {
    case 'oidc':
      return believeOidc(source, token);
    case 'spiffe-jwt':
      return believeSpiffeJwt(source, token);
    case 'github-actions':
      return believeGithubActions(source, token);
    default: {
      const believed = believeKubernetes(source, token);
      await reviews.confirm(source, token.text, believed.subject, context);
      return believed;
    }
  }
}
