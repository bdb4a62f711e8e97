import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { refusal, saidBy, unreadable } from './errors.ts';
import type { Target } from './target.ts';
import type { Received } from './transport.ts';

const knownSchema = z.object({
  accessor: z.string(),
  display_name: z.string(),
  expire_time: z.iso.datetime({ offset: true }).nullable(),
  ttl: z.number(),
  num_uses: z.number(),
  meta: z.record(z.string(), z.string()).nullish(),
  path: z.string(),
  policies: z.array(z.string()),
  /** Of whom the token is, where it is anybody's: it may what these say as well. */
  identity_policies: z.array(z.string()).nullish(),
  orphan: z.boolean(),
  renewable: z.boolean().optional(),
});
const tokenSchema = z.object({
  data: knownSchema.transform(({ identity_policies: inherited, ...token }) => ({
    ...token,
    /** All by which it is judged. */
    policies: [...new Set([...token.policies, ...(inherited ?? [])])],
  })),
});
/** A token as Vault knows it. Never its secret. */
export type KnownToken = z.infer<typeof tokenSchema>['data'];

const warnedSchema = z.object({ warnings: z.array(z.string()).min(1) });

/** OpenBao answers 400 here; others 403 with these words, which is then no refusal. */
function isAbsent(received: Received): boolean {
  return (received.status === 400 || received.status === 403) && /invalid accessor/i.test(saidBy(received));
}

/** The token of an accessor, or null when there is none. @throws ProviderError `denied` when it may not be seen. */
export async function lookUp(
  target: Target,
  accessor: string,
  signal: AbortSignal,
  lane = target.revoking,
): Promise<KnownToken | null> {
  const doing = 'looking up a token';
  const call = { method: 'POST', path: 'auth/token/lookup-accessor', data: { accessor } } as const;
  const received = await callKnowing(lane, doing, call, signal);
  if (isAbsent(received)) return null;
  if (received.status !== 200) throw refusal(received, doing);
  const parsed = tokenSchema.safeParse(received.body);
  // An answer about another would be believed otherwise.
  if (!parsed.success || parsed.data.data.accessor !== accessor) throw unreadable(doing);
  return parsed.data.data;
}

/** Ends a token with all that came from it. Its leases are only queued. @returns whether there was one. @throws ProviderError */
export async function revokeAccessor(target: Target, accessor: string, signal: AbortSignal): Promise<boolean> {
  const doing = 'revoking a token';
  const call = { method: 'POST', path: 'auth/token/revoke-accessor', data: { accessor } } as const;
  const received = await callKnowing(target.revoking, doing, call, signal);
  if (isAbsent(received)) return false;
  // Its accessor is there, and it is not found by it: Vault itself is ending it at this moment.
  if (received.status === 400) throw new ProviderError('retryable', `${doing}: Vault is at work on it`);
  if (received.status !== 204 && received.status !== 200) throw refusal(received, doing);
  if (received.status === 204) return true;
  // 200 comes with the warning that there is no such token.
  if (!warnedSchema.safeParse(received.body).success) throw unreadable(doing);
  return false;
}

/** 403 is told from a dead token of the broker's before it is given back. */
async function callKnowing(
  lane: Target['revoking'],
  doing: string,
  call: Parameters<Target['revoking']['call']>[1],
  signal: AbortSignal,
): Promise<Received> {
  try {
    return await lane.call(doing, call, signal, [200, 204, 400]);
  } catch (error) {
    if (!(error instanceof ProviderError) || error.errorClass !== 'denied') throw error;
    const received = await lane.call(doing, call, signal, [200, 204, 400, 403]);
    if (received.status === 403 && !isAbsent(received)) throw error;
    return received;
  }
}
