import { createHash } from 'node:crypto';
import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { each } from './each.ts';
import { refusal, saidBy, unreadable } from './errors.ts';
import type { Target } from './target.ts';

const leaseSchema = z.object({
  data: z.object({
    id: z.string(),
    issue_time: z.iso.datetime({ offset: true }),
    /** In the past for one that is to be revoked and has not been yet, and null for one that has no end. */
    expire_time: z.iso.datetime({ offset: true }).nullable(),
    ttl: z.number(),
    renewable: z.boolean(),
  }),
});
export type Lease = z.infer<typeof leaseSchema>['data'];

/** For evidence and words: who knows a lease's id can renew it, so that only where it stands is told, and what tells it from others. */
export function nameOf(lease: string): string {
  const digest = createHash('sha256').update(lease).digest('hex').slice(0, 12);
  return `${behind(lease)}/#${digest}`;
}

/** The path that a lease was had from. */
export function behind(lease: string): string {
  return lease.slice(0, lease.lastIndexOf('/'));
}

/** A lease, or null when it is gone. @throws ProviderError */
export async function lookUpLease(target: Target, lease: string, signal: AbortSignal): Promise<Lease | null> {
  const doing = 'looking up a lease';
  const call = { method: 'POST', path: 'sys/leases/lookup', data: { lease_id: lease } } as const;
  const received = await target.revoking.call(doing, call, signal, [200, 400]);
  if (received.status === 400) {
    if (/invalid lease|lease not found/i.test(saidBy(received))) return null;
    throw refusal(received, doing);
  }
  const parsed = leaseSchema.safeParse(received.body);
  if (!parsed.success || parsed.data.data.id !== lease) throw unreadable(doing);
  return parsed.data.data;
}

/**
 * Ends a lease now, in the system that it is about. Already gone is success. Not the default way, which only queues it, answers 202
 * for one that Vault has given up on, and puts its next try off by an hour; nor `revoke-force`, which forgets it while it lives.
 * @throws ProviderError with what the engine said against it.
 */
export async function revokeLease(target: Target, lease: string, signal: AbortSignal): Promise<void> {
  const doing = 'revoking a lease';
  const call = { method: 'POST', path: 'sys/leases/revoke', data: { lease_id: lease, sync: true } } as const;
  const received = await target.revoking.call(doing, call, signal, [202, 204, 400, 500]);
  if (received.status === 204) return;
  if (received.status === 202) throw refusal(received, doing);
  if (/invalid lease|lease not found/i.test(saidBy(received))) return;
  // Whatever the engine could not do today it may do tomorrow: the database may be down, or its role be put right.
  throw new ProviderError('retryable', `${doing}: it still stands: ${saidBy(received)}`);
}

const keysSchema = z.object({ data: z.object({ keys: z.array(z.string()) }) });
/** Lookups at once, and how many leases under one prefix are looked at. */
const width = 8;
const mostLeases = 20_000;

/** A lease with more below it than this, one below the other, is no engine's. */
const deepest = 8;

/** All leases under a prefix, in its folders too, that were issued since. @throws ProviderError */
export async function leasesUnder(
  target: Target,
  prefix: string,
  since: Date,
  signal: AbortSignal,
): Promise<readonly Lease[]> {
  const ids = await idsUnder(target, prefix, deepest, signal);
  if (ids.length > mostLeases)
    throw new ProviderError('retryable', `listing leases: ${ids.length} stand under ${prefix}`);
  const found: Lease[] = [];
  await each(ids, width, async (id) => {
    const lease = await lookUpLease(target, id, signal);
    if (lease !== null && new Date(lease.issue_time) >= since) found.push(lease);
  });
  return found;
}

async function idsUnder(
  target: Target,
  prefix: string,
  depth: number,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const doing = 'listing leases';
  const call = { method: 'LIST', path: `sys/leases/lookup/${prefix}` } as const;
  const received = await target.revoking.call(doing, call, signal, [200, 404]);
  // Nothing under it.
  if (received.status === 404) return [];
  const parsed = keysSchema.safeParse(received.body);
  if (!parsed.success) throw unreadable(doing);
  const ids: string[] = [];
  for (const key of parsed.data.data.keys) {
    if (!key.endsWith('/')) ids.push(`${prefix}/${key}`);
    else if (depth === 0) throw new ProviderError('misconfigured', `${doing}: too much stands under ${prefix}`);
    else ids.push(...(await idsUnder(target, `${prefix}/${key.slice(0, -1)}`, depth - 1, signal)));
  }
  return ids;
}

/**
 * Leases under a prefix that are to be gone and are not: those that a revoked token leaves to Vault's queue, and those that it gave
 * up on. Which token each came from Vault does not tell, so that another's, if it is as old, counts too.
 * @param since Those issued before are left out.
 * @throws ProviderError
 */
export async function pendingUnder(
  target: Target,
  prefix: string,
  since: Date,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const leases = await leasesUnder(target, prefix, since, signal);
  return leases.filter(({ ttl }) => ttl <= 0).map(({ id }) => id);
}

const renewedSchema = z.object({ lease_duration: z.number() });

/** Moves a lease's end to so many seconds from now. The engine may give less: when it ends then, or null where it refuses. */
export async function renewLease(
  target: Target,
  lease: string,
  seconds: number,
  signal: AbortSignal,
): Promise<Date | null> {
  const doing = 'renewing a lease';
  const call = { method: 'POST', path: 'sys/leases/renew', data: { lease_id: lease, increment: seconds } } as const;
  const received = await target.issuing.call(doing, call, signal, [200, 400, 403, 500]);
  const parsed = renewedSchema.safeParse(received.body);
  if (received.status === 200 && parsed.success) return new Date(Date.now() + parsed.data.lease_duration * 1000);
  target.context.log({ says: refusal(received, doing).message }, 'a lease keeps the end that its engine gave it');
  return null;
}
