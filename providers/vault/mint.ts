import { z } from 'zod';
import {
  type Facts,
  type Minted,
  type MintRequest,
  ProviderError,
  type Ref,
  Secret,
  within,
} from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import { assertHandle, type GrantToken, type Mark, toFacts } from './handle.ts';
import { assertBound, bindPath } from './path.ts';
import { type Read, readSecret } from './read.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { lookUp, revokeAccessor } from './tokens.ts';

/** Milliseconds for taking back what a failed mint has made. Should it not do: the reconciler finds it by its metadata. */
const undoMillis = 1000;

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

/**
 * Makes the grant's own token, and with it reads what was granted. The token ends by itself at the deadline, and bears the grant in
 * its metadata from the very first: whatever breaks off here, it is found by that.
 * @throws ProviderError `gone` when the end came first.
 */
export async function mint(
  target: Target,
  ref: Ref,
  request: MintRequest<VaultEntitlement>,
  signal: AbortSignal,
): Promise<Minted> {
  assertHandle(ref);
  const { config } = request;
  const path = pathOf(config, request.params);
  if (request.oneConnection === true)
    throw new ProviderError('misconfigured', 'nothing here holds a credential to one connection');
  target.mintsOnce(ref.handle);
  const { cluster_id: clusterId } = await target.issuing.health(signal);
  const made = await makeToken(target, ref, request, path, signal);
  try {
    // After the token was made: then either this finds the end, or the end finds the token.
    if ((await target.record?.findEnded(target.issuing, ref.handle, signal)) ?? null)
      throw new ProviderError('gone', 'minting: the grant was ended before');
    const read = await readSecret(target, made, request, path, signal);
    assertInTime(request);
    return {
      secret: new Secret(read.secret),
      expiresAt: read.expiresAt,
      facts: facts(clusterId, made, read, request, path),
    };
  } catch (error) {
    await undo(target, made);
    throw error;
  }
}

/** Where the secret is, or null for who gets the token itself. @throws ProviderError for params that are not bound. */
function pathOf(config: VaultEntitlement, params: MintRequest['params']): string | null {
  switch (config.mode) {
    case 'dynamic':
      return bindPath(config.path, params);
    case 'kv':
      return `${config.mount}/${config.version === 2 ? 'data/' : ''}${bindPath(config.path, params)}`;
    default:
      // A policy is the same for all who have it: it can bind nothing that one request says.
      assertBound([], params);
      return null;
  }
}

/** A process that was held up makes nothing any more. @throws ProviderError */
function assertInTime({ mintBy, deadline }: MintRequest): void {
  if (Date.now() > Math.min(mintBy.getTime(), deadline.getTime()))
    throw new ProviderError('retryable', 'minting: its time is over');
}

async function makeToken(
  target: Target,
  ref: Ref,
  request: MintRequest<VaultEntitlement>,
  path: string | null,
  signal: AbortSignal,
): Promise<GrantToken> {
  const { config } = request;
  const doing = 'making a token';
  // 0 would mean the longest that there is.
  const seconds = (until: Date): number => Math.max(1, Math.floor((until.getTime() - Date.now()) / 1000));
  if (request.deadline.getTime() <= Date.now()) throw new ProviderError('gone', `${doing}: the deadline is over`);
  assertInTime(request);
  const wraps = config.mode === 'token' ? config.wrap_seconds : undefined;
  const ttl = seconds(request.deadline);
  const data = {
    policies: config.policies,
    no_default_policy: true,
    type: 'service',
    ttl: `${ttl}s`,
    explicit_max_ttl: `${Math.max(ttl, seconds(request.notAfter))}s`,
    renewable: true,
    display_name: ref.handle,
    meta: markOf(target, request, path),
    // One use reads the secret. The one that is left keeps the token, which is what shows that the grant lives; nobody has its secret.
    ...(config.mode === 'token' ? {} : { num_uses: 2 }),
  };
  const call = {
    method: 'POST',
    path: `auth/token/create/${target.config.token_role}`,
    data,
    ...(wraps === undefined ? {} : { wrap: wraps }),
  } as const;
  const received = await target.issuing.call(doing, call, signal, [200], true);
  const parsed = madeSchema.safeParse(received.body);
  if (!parsed.success) throw unreadable(doing);
  const { auth, wrap_info: wrap } = parsed.data;
  if (wraps !== undefined && wrap?.wrapped_accessor !== undefined)
    return await lookAtWrapped(target, wrap.wrapped_accessor, wrap, config, signal);
  if (auth === null || auth === undefined) throw unreadable(doing);
  const made = {
    ...{ accessor: auth.accessor, token: auth.client_token, wrapped: null },
    expiresAt: new Date(Date.now() + auth.lease_duration * 1000),
  };
  const fault = faultOf(config, auth.policies, auth.lease_duration, auth.token_type);
  if (fault !== null) {
    await undo(target, made);
    throw new ProviderError('misconfigured', `${doing}: ${fault}`);
  }
  return made;
}

/** Of a token that is wrapped nothing is known but its accessor. */
async function lookAtWrapped(
  target: Target,
  accessor: string,
  wrap: { readonly token: string; readonly accessor: string },
  config: VaultEntitlement,
  signal: AbortSignal,
): Promise<GrantToken> {
  const wrapped = { token: wrap.token, accessor: wrap.accessor };
  const made = { accessor, token: null, wrapped, expiresAt: new Date() };
  try {
    const known = await lookUp(target, accessor, signal, target.issuing);
    if (known === null) throw new ProviderError('retryable', 'making a token: it is gone already');
    const fault = faultOf(config, known.policies, known.ttl, 'service');
    if (fault !== null) throw new ProviderError('misconfigured', `making a token: ${fault}`);
    return { ...made, expiresAt: new Date(Date.now() + known.ttl * 1000) };
  } catch (error) {
    await undo(target, made);
    throw error;
  }
}

function faultOf(config: VaultEntitlement, policies: readonly string[], ttl: number, type: string): string | null {
  if (type !== 'service') return 'the token role makes no service tokens: those could not be revoked';
  if (ttl <= 0) return 'the token role gives it no end';
  const wider = policies.filter((policy) => !config.policies.includes(policy));
  return wider.length > 0 ? `the token role gives more than was granted: ${wider.join(', ')}` : null;
}

function markOf(target: Target, request: MintRequest<VaultEntitlement>, path: string | null): Mark {
  const { config, grantId, notAfter } = request;
  return {
    mayfly_installation: target.context.installation,
    mayfly_target: target.context.target,
    mayfly_grant: grantId,
    mayfly_mode: config.mode,
    mayfly_not_after: notAfter.toISOString(),
    ...(path === null ? {} : { mayfly_path: path }),
    ...(config.mode === 'token' && config.lease_paths.length > 0
      ? { mayfly_lease_paths: config.lease_paths.join(' ') }
      : {}),
  };
}

function facts(
  clusterId: string,
  made: GrantToken,
  read: Read,
  { config, grantId, notAfter }: MintRequest<VaultEntitlement>,
  path: string | null,
): Facts {
  return toFacts(grantId, {
    cluster_id: clusterId,
    accessor: made.accessor,
    mode: config.mode,
    policies: [...config.policies].sort().join(' '),
    not_after: notAfter.toISOString(),
    wrapping_accessor: read.wrappingAccessor ?? undefined,
    path: path ?? undefined,
    lease_id: read.leaseId ?? undefined,
    native_expiry: read.nativeExpiry?.toISOString(),
    lease_paths: config.mode === 'token' && config.lease_paths.length > 0 ? config.lease_paths.join(' ') : undefined,
  });
}

/** Nobody has the secret: what is left after this ends at its deadline, or is found. */
async function undo(target: Target, { accessor, wrapped }: GrantToken): Promise<void> {
  const signal = within(undoMillis);
  const accessors = [accessor, ...(wrapped === null ? [] : [wrapped.accessor])];
  await Promise.allSettled(accessors.map((one) => revokeAccessor(target, one, signal)));
}
