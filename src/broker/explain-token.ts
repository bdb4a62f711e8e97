import type { Caller } from '../identity/types.ts';
import type { TokenExplanation } from '../identity/types.ts';
import type { BrokerDeps } from './deps.ts';
import { requireRole } from './operator-scope.ts';

/**
 * Why a token that somebody else has in hand is believed or not. It is looked at and forgotten: nothing is written down.
 * @throws MayflyError `operator_only`
 */
export async function explainToken(deps: BrokerDeps, caller: Caller, token: string): Promise<TokenExplanation> {
  requireRole(deps, caller, 'operator');
  const { trust } = deps.catalog.current().catalog;
  return await deps.identity.explain(token, { trust, audience: deps.audience, now: new Date() });
}
