import { ProviderError, type Ref } from '../../src/provider.ts';
import { each } from './each.ts';
import { factsOf } from './handle.ts';
import { lookUpLease } from './leases.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';

const width = 8;

/** When Vault ends each, as it says now by its time to live, which no clock can put wrong. Null for what it does not know. */
export async function ends(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly (Date | null)[]> {
  const { cluster_id: clusterId } = await target.revoking.health(signal);
  const found = new Map<number, Date | null>();
  await each(refs, width, async (ref, index) => {
    try {
      found.set(index, await endOf(target, ref, clusterId, signal));
    } catch (error) {
      // It is asked while the store is away: what one can not be told of keeps no other from being told.
      if (signal.aborted) throw error;
      const says = error instanceof ProviderError ? error.message : 'it failed';
      target.context.log({ grant_id: ref.grantId, says }, 'when it ends is not known');
    }
  });
  return refs.map((_, index) => found.get(index) ?? null);
}

async function endOf(target: Target, ref: Ref, clusterId: string, signal: AbortSignal): Promise<Date | null> {
  const facts = factsOf(ref);
  if (facts === null || facts.cluster_id !== clusterId) return null;
  const token = await lookUp(target, facts.accessor, signal);
  if (token === null) return null;
  const lease = facts.lease_id === undefined ? null : await lookUpLease(target, facts.lease_id, signal);
  if (facts.native_expiry !== undefined) return new Date(facts.native_expiry);
  return new Date(Date.now() + Math.min(token.ttl, lease?.ttl ?? token.ttl) * 1000);
}
