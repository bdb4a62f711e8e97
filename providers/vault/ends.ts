import type { Ref } from '../../src/provider.ts';
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
    const facts = factsOf(ref);
    if (facts === null || facts.cluster_id !== clusterId) return;
    const token = await lookUp(target, facts.accessor, signal);
    if (token === null) return;
    const lease = facts.lease_id === undefined ? null : await lookUpLease(target, facts.lease_id, signal);
    const seconds = Math.min(token.ttl, lease?.ttl ?? token.ttl);
    found.set(
      index,
      facts.native_expiry === undefined ? new Date(Date.now() + seconds * 1000) : new Date(facts.native_expiry),
    );
  });
  return refs.map((_, index) => found.get(index) ?? null);
}
