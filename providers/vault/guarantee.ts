import { z } from 'zod';
import { type Guarantee, ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';

/** What the end of a lease does, by the type of the engine. */
export type LeaseEnd = 'ends' | 'expires';

/**
 * Engines whose revocation takes the credential away in the system where it is good. Of the others either nobody does (signed
 * certificates, AWS sessions of a role), or it is not known here: of those nothing is promised but that they expire.
 */
const ending = new Set(['database', 'rabbitmq', 'openldap', 'ldap', 'consul', 'nomad', 'mongodbatlas', 'terraform']);

/** System-wide, Vault gives no token a longer life unless it is tuned to. */
const longest = 32 * 86_400;

const roleSchema = z.object({ data: z.object({ token_explicit_max_ttl: z.number().nullish() }) });

/** Seconds that a token of our role can live: the role's own bound holds for each of them. @throws ProviderError */
async function longestLife({ config, issuing }: Target, signal: AbortSignal): Promise<number> {
  const doing = 'reading the token role';
  const call = { method: 'GET', path: `auth/token/roles/${config.token_role}` } as const;
  const parsed = roleSchema.safeParse((await issuing.call(doing, call, signal, [200])).body);
  if (!parsed.success) throw unreadable(doing);
  return Math.min(longest, parsed.data.data.token_explicit_max_ttl || longest);
}

/** @throws ProviderError `misconfigured` when the path leads to no engine. */
export async function leaseEnd(target: Target, path: string, signal: AbortSignal): Promise<LeaseEnd> {
  const { type } = await target.engines.at(target.issuing, path, signal);
  if (type === 'kv' || type === 'generic')
    throw new ProviderError('misconfigured', `${path} is a static secret: mode kv is for that`);
  return ending.has(type) ? 'ends' : 'expires';
}

/** What is promised for an entitlement on this target as it is now. @throws ProviderError */
export async function guarantee(
  target: Target,
  entitlement: VaultEntitlement,
  signal: AbortSignal,
): Promise<Guarantee> {
  const bounds = { min_ttl_seconds: 1, max_ttl_seconds: await longestLife(target, signal) };
  const common = { enumerable: true, one_connection: false, ...bounds };
  switch (entitlement.mode) {
    case 'token':
      return {
        ...common,
        ...{ revocation: 'immediate', native_expiry: true, ends_sessions: true },
        says:
          'An early end revokes the token before it is called ended: Vault refuses its next request. What it made ends with it; ' +
          (entitlement.lease_paths.length === 0
            ? 'leases that the agent itself obtained are left to Vault’s own queue, and are not looked after.'
            : 'leases under the declared paths are seen to be gone, but for one that is being made in that very moment: it lives its own time.') +
          ' At the deadline Vault itself ends the token.',
      };
    case 'kv':
      await assertKv(target, entitlement, signal);
      return {
        ...common,
        ...{ revocation: 'irrevocable', native_expiry: false, ends_sessions: false },
        says: 'The value was there before and stays: what was read can not be taken back. Only the token that read it ends. Change the value to end its use.',
      };
    default:
      return await ofDynamic(target, entitlement.path, common, signal);
  }
}

type Common = Pick<Guarantee, 'enumerable' | 'one_connection' | 'min_ttl_seconds' | 'max_ttl_seconds'>;

async function ofDynamic(target: Target, path: string, common: Common, signal: AbortSignal): Promise<Guarantee> {
  if ((await leaseEnd(target, path, signal)) === 'ends')
    return {
      ...common,
      ...{ revocation: 'immediate', native_expiry: true, ends_sessions: false },
      says:
        'An early end has Vault take the credential away where it is good, and waits for it; while that system can not be reached it stays owed. ' +
        'Sessions that are open there end only if the statements of the engine’s role end them. At the deadline Vault itself begins to take it away.',
    };
  const { type } = await target.engines.at(target.issuing, path, signal);
  return {
    ...common,
    ...{ revocation: 'expiry-only', native_expiry: true, ends_sessions: false },
    says: `What the engine ${type} gives is good until it expires: an early end makes Vault forget it, and takes nothing away.`,
  };
}

async function assertKv(
  target: Target,
  { mount, version }: Extract<VaultEntitlement, { mode: 'kv' }>,
  signal: AbortSignal,
): Promise<void> {
  const engine = await target.engines.at(target.issuing, mount, signal);
  const found = engine.type === 'kv' && engine.version === '2' ? 2 : 1;
  if (!['kv', 'generic'].includes(engine.type) || engine.mount !== `${mount}/` || found !== version)
    throw new ProviderError('misconfigured', `${mount} is no KV mount of version ${version}`);
}
