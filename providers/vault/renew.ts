import { z } from 'zod';
import { ProviderError, type Ref, type Renewed } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import { assertHandle, assertHere, factsOf, toFacts } from './handle.ts';
import { renewLease } from './leases.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';

const renewedSchema = z.object({ auth: z.object({ accessor: z.string(), lease_duration: z.number() }) });

/**
 * Moves the end of the token, and of its lease. Vault does not hold a token that was made by a role to its own explicit_max_ttl when it
 * is renewed (measured with OpenBao 2.4.0; the role's counts), so that the furthest end is kept to here. What Vault gives is said, not what was asked for.
 * @throws ProviderError `gone` when there is nothing to renew.
 */
export async function renew(target: Target, ref: Ref, until: Date, signal: AbortSignal): Promise<Renewed> {
  assertHandle(ref, target.place);
  target.record?.assertForward();
  const facts = factsOf(ref);
  if (facts === null) throw new ProviderError('misconfigured', 'renewing: it is not known what was made');
  const { cluster_id: clusterId } = await target.issuing.health(signal);
  assertHere(facts, clusterId, target.place);
  if (facts.native_expiry !== undefined)
    throw new ProviderError('misconfigured', 'renewing: what was given can not be extended');
  const known = await lookUp(target, facts.accessor, signal, target.issuing);
  if (known === null || known.ttl <= 0) throw new ProviderError('gone', 'renewing: the token is gone');
  if (known.meta?.['mayfly_grant'] !== ref.grantId)
    throw new ProviderError('misconfigured', 'renewing: the accessor is that of a token without our mark');
  const furthest = Math.min(until.getTime(), new Date(facts.not_after).getTime());
  const seconds = Math.floor((furthest - Date.now()) / 1000);
  if (seconds < 1) throw new ProviderError('gone', 'renewing: its time is over');
  const doing = 'renewing a token';
  const data = { accessor: facts.accessor, increment: `${seconds}s` };
  const received = await target.issuing.call(
    doing,
    { method: 'POST', path: 'auth/token/renew-accessor', data },
    signal,
    [200],
  );
  const parsed = renewedSchema.safeParse(received.body);
  if (!parsed.success || parsed.data.auth.accessor !== facts.accessor) throw unreadable(doing);
  const { lease_duration: given } = parsed.data.auth;
  if (given > seconds + 1)
    throw new ProviderError(
      'misconfigured',
      `${doing}: the token role gives it ${given} s instead of ${seconds} (token_period?)`,
    );
  const tokenEnds = new Date(Date.now() + given * 1000);
  if (facts.lease_id === undefined) return { expiresAt: tokenEnds, facts: ref.facts ?? {} };
  const leaseEnds = await renewLease(target, facts.lease_id, seconds, signal);
  if (leaseEnds === null) throw new ProviderError('misconfigured', 'renewing: the engine does not extend what it gave');
  const { digest: _, ...learnt } = facts;
  return {
    expiresAt: leaseEnds < tokenEnds ? leaseEnds : tokenEnds,
    facts: toFacts(ref.grantId, { ...learnt, lease_until: leaseEnds.toISOString() }),
  };
}
