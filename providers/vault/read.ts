import { z } from 'zod';
import { type MintRequest, ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import { leaseEnd } from './guarantee.ts';
import type { Ask } from './client.ts';
import type { GrantToken, Learnt } from './handle.ts';
import type { Received } from './transport.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { renewLease } from './leases.ts';

/** What the agent is given, and what must be known of it later. */
export interface Read {
  readonly secret: Readonly<Record<string, unknown>>;
  readonly expiresAt: Date;
  readonly learnt: Pick<Learnt, 'lease_id' | 'lease_until' | 'native_expiry' | 'wrapping_accessor'>;
}

/** How what is read is asked for. */
export interface Reading {
  /** The answer to the grant's own token, however long a system behind Vault takes for it. @throws ProviderError */
  ask(doing: string, call: Pick<Ask, 'method' | 'path' | 'data' | 'wrap'>): Promise<Received>;
  /** What came of it is known: from here on it can be ended. @throws ProviderError when it was ended meanwhile. */
  learn(learnt: Read['learnt']): Promise<void>;
  readonly signal: AbortSignal;
}

const answerSchema = z.object({
  lease_id: z.string(),
  renewable: z.boolean(),
  lease_duration: z.number(),
  data: z.record(z.string(), z.unknown()).nullable(),
});
const wrappedSchema = z.object({ wrap_info: z.object({ token: z.string().min(1), accessor: z.string().min(1) }) });
const versionedSchema = z.object({ data: z.record(z.string(), z.unknown()) });
/** Some engines say when what they gave ends: a certificate in Unix seconds. */
const expirationSchema = z.object({ expiration: z.union([z.number(), z.string().regex(/^\d+$/)]).transform(Number) });

/** What the answer itself says beside the credential. */
const reserved = ['expires_at', 'guarantee', 'grant_id'];
/** An engine tells its end by its own clock, which may be so far from ours. */
export const tolerableMillis = 5000;

type Of<M extends VaultEntitlement['mode']> = MintRequest<Extract<VaultEntitlement, { mode: M }>>;

/** @throws ProviderError */
export async function readSecret(
  target: Target,
  made: GrantToken,
  request: MintRequest<VaultEntitlement>,
  path: string,
  reading: Reading,
): Promise<Read> {
  const { config } = request;
  if (config.mode === 'kv') return await readStatic(target, made, { ...request, config }, path, reading);
  if (config.mode === 'dynamic') return await readDynamic(target, made, { ...request, config }, path, reading);
  return tokenItself(target, made);
}

/** Where and how the agent speaks to Vault. */
function endpoint({ config, context }: Target): Readonly<Record<string, unknown>> {
  const { addresses, agent_address: own, namespace, ca } = config;
  return {
    address: own ?? addresses[0],
    ...(namespace === undefined ? {} : { namespace }),
    ...(ca === undefined ? {} : { ca_pem: context.secret(ca).reveal() }),
  };
}

export function tokenItself(target: Target, { token, wrapped, expiresAt }: GrantToken): Read {
  const given = wrapped === null ? { token } : { wrapping_token: wrapped.token };
  return {
    secret: { ...given, ...endpoint(target) },
    ...{ expiresAt, learnt: wrapped === null ? {} : { wrapping_accessor: wrapped.accessor } },
  };
}

async function readStatic(
  target: Target,
  { expiresAt }: GrantToken,
  { config }: Of<'kv'>,
  path: string,
  reading: Reading,
): Promise<Read> {
  const doing = 'reading a secret';
  const { wrap_seconds: wrap } = config;
  const received = await reading.ask(doing, { method: 'GET', path, ...(wrap === undefined ? {} : { wrap }) });
  if (wrap !== undefined) return { expiresAt, ...unwrapLater(target, received.body, doing) };
  const parsed = answerSchema.safeParse(received.body);
  const values = config.version === 2 ? versionedSchema.safeParse(parsed.data?.data).data?.data : parsed.data?.data;
  if (values === undefined || values === null) throw unreadable(doing);
  return { expiresAt, secret: plain(values), learnt: {} };
}

async function readDynamic(
  target: Target,
  made: GrantToken,
  request: Of<'dynamic'>,
  path: string,
  reading: Reading,
): Promise<Read> {
  const doing = 'reading a dynamic secret';
  const { config, deadline } = request;
  const { signal } = reading;
  const end = await leaseEnd(target, path, signal);
  const seconds = Math.max(1, Math.floor((deadline.getTime() - Date.now()) / 1000));
  const data = Object.fromEntries(
    Object.entries(config.data).map(([key, value]) => [
      key,
      typeof value === 'string' ? value.replaceAll('${ttl_seconds}', String(seconds)) : value,
    ]),
  );
  const call =
    config.method === 'POST' ? ({ method: 'POST', path, data } as const) : ({ method: 'GET', path } as const);
  const received = await reading.ask(doing, call);
  const readAt = Date.now();
  const parsed = answerSchema.safeParse(received.body);
  if (!parsed.success) throw unreadable(doing);
  const { lease_id: lease, lease_duration: leased, renewable, data: values } = parsed.data;
  const leaseId = lease === '' ? undefined : lease;
  const leaseUntil = new Date(readAt + leased * 1000);
  const expiration = expirationSchema.safeParse(values).data?.expiration;
  const nativeExpiry = expiration === undefined ? leaseUntil : new Date(expiration * 1000);
  const learnt: Read['learnt'] = {
    ...(leaseId === undefined ? {} : { lease_id: leaseId, lease_until: leaseUntil.toISOString() }),
    ...(end === 'expires' ? { native_expiry: nativeExpiry.toISOString() } : {}),
  };
  await reading.learn(learnt);
  if (values === null) throw unreadable(doing);
  const secret = plain(values);
  if (end === 'expires') {
    if (expiration === undefined && leaseId === undefined)
      throw new ProviderError('misconfigured', `${doing}: nothing says when it ends, and nothing can end it`);
    if (nativeExpiry.getTime() > deadline.getTime() + tolerableMillis)
      throw new ProviderError(
        'misconfigured',
        `${doing}: it is good until ${nativeExpiry.toISOString()}, longer than was granted (a ttl of \${ttl_seconds} in data?)`,
      );
    const handed = await handOver(target, config.wrap_seconds, secret, signal);
    return { secret: handed.secret, expiresAt: nativeExpiry, learnt: { ...learnt, ...handed.learnt } };
  }
  if (leaseId === undefined)
    throw new ProviderError('misconfigured', `${doing}: it comes without a lease, so that nothing could end it`);
  // The lease ends with the token. To tell it besides has the engine tell its own system, where that can be told: then it holds with Vault down.
  const fitted =
    renewable && Math.abs(leased - seconds) > 5 ? await renewLease(target, leaseId, seconds, signal) : null;
  const leaseEnds = fitted ?? leaseUntil;
  const expiresAt = leaseEnds < made.expiresAt ? leaseEnds : made.expiresAt;
  const handed = await handOver(target, config.wrap_seconds, secret, signal);
  return {
    ...{ secret: handed.secret, expiresAt },
    learnt: { ...learnt, ...handed.learnt, lease_until: leaseEnds.toISOString() },
  };
}

/** Wrapped by itself, where the read could not be: a wrapped answer hides the lease. */
async function handOver(
  target: Target,
  seconds: number | undefined,
  secret: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Pick<Read, 'secret' | 'learnt'>> {
  if (seconds === undefined) return { secret, learnt: {} };
  const doing = 'wrapping a secret';
  const call = { method: 'POST', path: 'sys/wrapping/wrap', data: secret, wrap: seconds } as const;
  const received = await target.issuing.call(doing, call, signal, [200], true);
  return unwrapLater(target, received.body, doing);
}

function unwrapLater(target: Target, body: unknown, doing: string): Pick<Read, 'secret' | 'learnt'> {
  const parsed = wrappedSchema.safeParse(body);
  if (!parsed.success) throw unreadable(doing);
  const { token, accessor } = parsed.data.wrap_info;
  return { secret: { wrapping_token: token, ...endpoint(target) }, learnt: { wrapping_accessor: accessor } };
}

/** @throws ProviderError when a member of the secret would be covered by one of the answer's own. */
function plain(values: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const covered = reserved.filter((member) => Object.hasOwn(values, member));
  if (covered.length > 0)
    throw new ProviderError(
      'misconfigured',
      `the secret has members that the answer has itself: ${covered.join(', ')}`,
    );
  return values;
}
