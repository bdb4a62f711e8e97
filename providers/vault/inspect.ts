import { type Drift, type Granted, type Inspection, ProviderError } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHere, factsOf, type VaultFacts } from './handle.ts';
import { lookUpLease } from './leases.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { type KnownToken, lookUp } from './tokens.ts';

const width = 8;
/** An end is moved in whole seconds, and clocks differ; more than this is somebody's doing. */
const tolerableMillis = 30_000;

/**
 * What each token can do now beside what was granted. A token's policies are fixed when it is made; its end is not: who may renew it
 * can move it. What a policy says by now is not looked at.
 */
export async function inspect(
  target: Target,
  grants: readonly Granted<VaultEntitlement>[],
  signal: AbortSignal,
): Promise<readonly Inspection[]> {
  if (grants.length === 0) return [];
  const { cluster_id: clusterId } = await target.issuing.health(signal);
  const found = new Map<number, Inspection>();
  await each(grants, width, async (grant, index) => {
    try {
      const facts = factsOf(grant);
      assertHere(facts, clusterId, target.place);
      if (facts === null) throw new ProviderError('retryable', 'inspecting: its facts are lost');
      const token = await lookUp(target, facts.accessor, signal, target.issuing);
      const lease = facts.lease_id === undefined ? undefined : await lookUpLease(target, facts.lease_id, signal);
      found.set(index, { ok: true, drift: driftOf(grant, facts, token, lease === null) });
    } catch (error) {
      const failed = error instanceof ProviderError ? error : new ProviderError('retryable', 'inspecting: it failed');
      found.set(index, { ok: false, error: failed });
    }
  });
  return grants.map(
    (_, index) =>
      found.get(index) ?? { ok: false, error: new ProviderError('retryable', 'inspecting: it was not reached') },
  );
}

function driftOf(
  grant: Granted<VaultEntitlement>,
  facts: VaultFacts,
  token: KnownToken | null,
  leaseGone: boolean,
): readonly Drift[] {
  if (token === null) return [{ what: 'absent', says: 'its token is gone, though nobody ended it here' }];
  const drift: Drift[] = [];
  if (token.meta?.['mayfly_grant'] !== grant.grantId)
    drift.push({ what: 'unmarked', says: 'the token bears another mark than that of the grant' });
  if (leaseGone) drift.push({ what: 'ended', says: 'its lease is gone, though nobody ended it here' });
  const policies = [...token.policies].sort().join(' ');
  if (policies !== facts.policies)
    drift.push({ what: 'memberships', says: `the token has the policies ${policies}; granted were ${facts.policies}` });
  const ends = Date.now() + token.ttl * 1000;
  if (ends > grant.deadline.getTime() + tolerableMillis)
    drift.push({
      what: 'expiry',
      says: `the token lives until ${new Date(ends).toISOString()}, longer than was granted: somebody renewed it`,
    });
  return drift;
}
