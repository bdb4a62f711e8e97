import { z } from 'zod';
import { type MintRequest, ProviderError, type Ref } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import type { GrantToken, Mark } from './handle.ts';
import { slackMillis } from './lost.ts';
import { tolerableMillis } from './read.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';
import type { Received } from './transport.ts';

const madeSchema = z.object({
  auth: z
    .object({
      client_token: z.string().min(1),
      accessor: z.string().min(1),
      policies: z.array(z.string()),
      lease_duration: z.number(),
      token_type: z.string(),
    })
    .nullish(),
  wrap_info: z
    .object({ token: z.string().min(1), accessor: z.string().min(1), wrapped_accessor: z.string().optional() })
    .nullish(),
});
const renewedSchema = z.object({ auth: z.object({ lease_duration: z.number() }) });

/** A token may be told to live so much longer than its grant: Vault counts whole seconds. */
const tooLongMillis = 1000;

/** What is asked for. */
export interface TokenAsked {
  /** Seconds that it is to live. */
  readonly ttl: number;
  readonly data: Readonly<Record<string, unknown>>;
  readonly wrap: number | undefined;
}

/** @param delayMillis For what is on its way: Vault counts from when it arrives. @param expires Whether nothing can end what is read. */
export function tokenAsked(
  target: Target,
  ref: Ref,
  request: MintRequest<VaultEntitlement>,
  path: string | null,
  { delayMillis, expires }: { readonly delayMillis: number; readonly expires: boolean },
): TokenAsked {
  const { config, deadline, notAfter } = request;
  const ttl = secondsTo(deadline, delayMillis);
  const data = {
    policies: config.policies,
    no_default_policy: true,
    type: 'service',
    ttl: `${ttl}s`,
    explicit_max_ttl: `${Math.max(ttl, secondsTo(notAfter, delayMillis))}s`,
    renewable: true,
    display_name: ref.handle,
    meta: markOf(target, ref, request, path, expires),
    // One use reads the secret. The one that is left keeps the token, which is what shows that the grant lives; nobody has its secret.
    ...(config.mode === 'token' ? {} : { num_uses: 2 }),
  };
  return { ttl, data, wrap: config.mode === 'token' ? config.wrap_seconds : undefined };
}

/** 0 would mean the longest that there is. */
function secondsTo(until: Date, delayMillis: number): number {
  return Math.max(1, Math.floor((until.getTime() - Date.now() - delayMillis) / 1000));
}

/** What Vault made, before it was looked at: from here on it can be ended. @throws ProviderError */
export function tokenIn(received: Received, wrap: number | undefined): GrantToken & { readonly known: Known | null } {
  const parsed = madeSchema.safeParse(received.body);
  if (!parsed.success) throw unreadable('making a token');
  const { auth, wrap_info: wrapped } = parsed.data;
  if (wrap !== undefined && wrapped) {
    const { token, accessor, wrapped_accessor: inside } = wrapped;
    // A batch token has no accessor.
    const known = inside ? null : { policies: [], ttl: wrap, type: 'batch' };
    return { accessor: inside || accessor, token: null, known, expiresAt: new Date(), wrapped: { token, accessor } };
  }
  if (auth === null || auth === undefined) throw unreadable('making a token');
  const { accessor, client_token: token, policies, lease_duration: ttl, token_type: type } = auth;
  return {
    ...{ accessor, token, wrapped: null, expiresAt: new Date(Date.now() + ttl * 1000) },
    known: { policies, ttl, type, ...(wrap === undefined ? {} : { bare: true }) },
  };
}

interface Known {
  readonly policies: readonly string[];
  readonly ttl: number;
  readonly type: string;
  /** It was to be wrapped, and is not. */
  readonly bare?: true;
}

/**
 * When it ends, if it is what was asked for. One that would live past the deadline, since it was long on its way, is told to end in time.
 * @throws ProviderError for one that is more than was granted.
 */
export async function endOfToken(
  target: Target,
  made: ReturnType<typeof tokenIn>,
  asked: TokenAsked,
  { config, deadline }: MintRequest<VaultEntitlement>,
  signal: AbortSignal,
): Promise<Date> {
  const doing = 'making a token';
  // Of a token that is wrapped nothing is known but its accessor.
  const known = made.known ?? (await look(target, made.accessor, signal));
  const fault = faultOf(config, known, asked.ttl);
  if (fault !== null) throw new ProviderError('misconfigured', `${doing}: ${fault}`);
  const ends = made.known === null ? new Date(Date.now() + known.ttl * 1000) : made.expiresAt;
  const last = deadline.getTime() + tooLongMillis;
  if (ends.getTime() <= last) return ends;
  const seen = await look(target, made.accessor, signal);
  const seenEnd = new Date(Date.now() + seen.ttl * 1000);
  if (seenEnd.getTime() <= last) return seenEnd;
  const seconds = Math.floor((deadline.getTime() - Date.now()) / 1000);
  if (seconds < 1) throw new ProviderError('retryable', `${doing}: it took longer than it was to live`);
  const data = { accessor: made.accessor, increment: `${seconds}s` };
  const call = { method: 'POST', path: 'auth/token/renew-accessor', data } as const;
  const parsed = renewedSchema.safeParse((await target.issuing.call(doing, call, signal, [200])).body);
  if (!parsed.success) throw unreadable(doing);
  const cut = new Date(Date.now() + parsed.data.auth.lease_duration * 1000);
  if (cut.getTime() > last)
    throw new ProviderError('retryable', `${doing}: it would live until ${cut.toISOString()}, past its deadline`);
  return cut;
}

async function look(target: Target, accessor: string, signal: AbortSignal): Promise<Known> {
  const known = await lookUp(target, accessor, signal, target.issuing);
  if (known === null) throw new ProviderError('retryable', 'making a token: it is gone already');
  return { policies: known.policies, ttl: known.ttl, type: 'service' };
}

function faultOf(config: VaultEntitlement, { policies, ttl, type, bare }: Known, asked: number): string | null {
  if (bare === true) return 'it came unwrapped: does something on the way drop the header X-Vault-Wrap-TTL?';
  if (type !== 'service') return 'the token role makes no service tokens: those could not be revoked';
  if (ttl <= 0) return 'the token role gives it no end';
  if (ttl > asked + 1) return `the token role gives it ${ttl} s instead of ${asked} (token_period?)`;
  const wider = policies.filter((policy) => !config.policies.includes(policy));
  return wider.length > 0 ? `the token role gives more than was granted: ${wider.join(', ')}` : null;
}

function markOf(
  target: Target,
  { handle }: Ref,
  request: MintRequest<VaultEntitlement>,
  path: string | null,
  expires: boolean,
): Mark {
  const { config, grantId, deadline, mintBy, notAfter } = request;
  const ends = [
    ...(expires ? [deadline.getTime() + tolerableMillis] : []),
    ...(config.wrap_seconds === undefined ? [] : [mintBy.getTime() + config.wrap_seconds * 1000 + slackMillis]),
  ];
  return {
    mayfly_installation: target.context.installation,
    mayfly_target: target.context.target,
    mayfly_grant: grantId,
    mayfly_handle: handle,
    mayfly_mode: config.mode,
    mayfly_not_after: notAfter.toISOString(),
    ...(path === null ? {} : { mayfly_path: path }),
    ...(config.mode === 'token' && config.lease_paths.length > 0
      ? { mayfly_lease_paths: config.lease_paths.join(' ') }
      : {}),
    ...(ends.length === 0 ? {} : { mayfly_open_until: new Date(Math.max(...ends)).toISOString() }),
  };
}
