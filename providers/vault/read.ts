import { z } from 'zod';
import { type MintRequest, ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import { leaseEnd } from './guarantee.ts';
import type { GrantToken } from './handle.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { renewLease } from './leases.ts';

/** What the agent is given, and what must be known of it later. */
export interface Read {
  readonly secret: Readonly<Record<string, unknown>>;
  readonly expiresAt: Date;
  readonly leaseId: string | null;
  readonly wrappingAccessor: string | null;
  /** Where an early end takes nothing away. */
  readonly nativeExpiry: Date | null;
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
/** A credential may live so much longer than its grant: less can not be asked for in whole seconds. */
const tolerableMillis = 5000;

type Of<M extends VaultEntitlement['mode']> = MintRequest<Extract<VaultEntitlement, { mode: M }>>;

/** @throws ProviderError */
export async function readSecret(
  target: Target,
  made: GrantToken,
  request: MintRequest<VaultEntitlement>,
  path: string | null,
  signal: AbortSignal,
): Promise<Read> {
  const { config } = request;
  if (config.mode === 'token' || path === null || made.token === null) return tokenItself(target, made);
  return config.mode === 'kv'
    ? await readStatic(target, { ...made, token: made.token }, { ...request, config }, path, signal)
    : await readDynamic(target, { ...made, token: made.token }, { ...request, config }, path, signal);
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

function tokenItself(target: Target, { token, wrapped, expiresAt }: GrantToken): Read {
  const given = wrapped === null ? { token } : { wrapping_token: wrapped.token };
  return {
    secret: { ...given, ...endpoint(target) },
    ...{ expiresAt, leaseId: null, wrappingAccessor: wrapped?.accessor ?? null, nativeExpiry: null },
  };
}

async function readStatic(
  target: Target,
  { token, expiresAt }: GrantToken & { readonly token: string },
  { config }: Of<'kv'>,
  path: string,
  signal: AbortSignal,
): Promise<Read> {
  const doing = 'reading a secret';
  const { wrap_seconds: wrap } = config;
  const received = await target.issuing.as(
    token,
    doing,
    { method: 'GET', path, ...(wrap === undefined ? {} : { wrap }) },
    signal,
  );
  const rest = { expiresAt, leaseId: null, nativeExpiry: null };
  if (wrap !== undefined) return { ...rest, ...unwrapLater(target, received.body, doing) };
  const parsed = answerSchema.safeParse(received.body);
  const values = config.version === 2 ? versionedSchema.safeParse(parsed.data?.data).data?.data : parsed.data?.data;
  if (values === undefined || values === null) throw unreadable(doing);
  return { ...rest, secret: plain(values), wrappingAccessor: null };
}

async function readDynamic(
  target: Target,
  made: GrantToken & { readonly token: string },
  request: Of<'dynamic'>,
  path: string,
  signal: AbortSignal,
): Promise<Read> {
  const doing = 'reading a dynamic secret';
  const { config, deadline } = request;
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
  const received = await target.issuing.as(made.token, doing, call, signal);
  const readAt = Date.now();
  const parsed = answerSchema.safeParse(received.body);
  if (!parsed.success || parsed.data.data === null) throw unreadable(doing);
  const { lease_id: lease, lease_duration: leased, renewable, data: values } = parsed.data;
  const leaseId = lease === '' ? null : lease;
  const secret = plain(values);
  if (end === 'expires') {
    const expiration = expirationSchema.safeParse(values).data?.expiration;
    const nativeExpiry = new Date(expiration === undefined ? readAt + leased * 1000 : expiration * 1000);
    if (expiration === undefined && leaseId === null)
      throw new ProviderError('misconfigured', `${doing}: nothing says when it ends, and nothing can end it`);
    if (nativeExpiry.getTime() > deadline.getTime() + tolerableMillis)
      throw new ProviderError(
        'misconfigured',
        `${doing}: it is good until ${nativeExpiry.toISOString()}, longer than was granted (a ttl of \${ttl_seconds} in data?)`,
      );
    return {
      ...(await handOver(target, config.wrap_seconds, secret, signal)),
      leaseId,
      expiresAt: nativeExpiry,
      nativeExpiry,
    };
  }
  if (leaseId === null)
    throw new ProviderError('misconfigured', `${doing}: it comes without a lease, so that nothing could end it`);
  // The lease ends with the token. To tell it besides has the engine tell its own system, where that can be told: then it holds with Vault down.
  const fitted =
    renewable && Math.abs(leased - seconds) > 5 ? await renewLease(target, leaseId, seconds, signal) : null;
  const leaseEnds = fitted ?? new Date(readAt + leased * 1000);
  const expiresAt = leaseEnds < made.expiresAt ? leaseEnds : made.expiresAt;
  return { ...(await handOver(target, config.wrap_seconds, secret, signal)), leaseId, expiresAt, nativeExpiry: null };
}

/** Wrapped by itself, where the read could not be: a wrapped answer hides the lease. */
async function handOver(
  target: Target,
  seconds: number | undefined,
  secret: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Pick<Read, 'secret' | 'wrappingAccessor'>> {
  if (seconds === undefined) return { secret, wrappingAccessor: null };
  const doing = 'wrapping a secret';
  const call = { method: 'POST', path: 'sys/wrapping/wrap', data: secret, wrap: seconds } as const;
  const received = await target.issuing.call(doing, call, signal, [200], true);
  return unwrapLater(target, received.body, doing);
}

function unwrapLater(target: Target, body: unknown, doing: string): Pick<Read, 'secret' | 'wrappingAccessor'> {
  const parsed = wrappedSchema.safeParse(body);
  if (!parsed.success) throw unreadable(doing);
  const { token, accessor } = parsed.data.wrap_info;
  return { secret: { wrapping_token: token, ...endpoint(target) }, wrappingAccessor: accessor };
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
