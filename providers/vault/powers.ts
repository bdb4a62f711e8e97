import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { unreadable } from './errors.ts';
import type { VaultTarget } from './schema.ts';
import type { Target } from './target.ts';
import { brokerName } from './policy.ts';

/** A name that nobody has: who may go there may by a wildcard. */
export const probe = 'mayfly-probe';
/** Roles that are asked about, each by its name. */
const mostRoles = 200;

const capabilitiesSchema = z.object({ data: z.record(z.string(), z.array(z.string())) });
const rolesSchema = z.object({ data: z.object({ keys: z.array(z.string()) }) });

/** By path, what is allowed there: what `paths` names, and nothing where nothing is. */
export type Capabilities = (path: string) => readonly string[];

/** What the broker itself may, or the token of an accessor. @throws ProviderError */
export async function capabilities(
  target: Target,
  paths: readonly string[],
  signal: AbortSignal,
  accessor?: string,
): Promise<Capabilities> {
  const doing = 'asking what a token may';
  const call =
    accessor === undefined
      ? ({ method: 'POST', path: 'sys/capabilities-self', data: { paths } } as const)
      : ({ method: 'POST', path: 'sys/capabilities-accessor', data: { paths, accessor } } as const);
  const parsed = capabilitiesSchema.safeParse((await target.issuing.call(doing, call, signal, [200])).body);
  if (!parsed.success || !paths.every((path) => Object.hasOwn(parsed.data.data, path))) throw unreadable(doing);
  const { data } = parsed.data;
  return (path) => (data[path] ?? []).filter((one) => one !== 'deny');
}

/** The names of all token roles. @throws ProviderError */
export async function tokenRoles(target: Target, signal: AbortSignal): Promise<readonly string[]> {
  const doing = 'listing the token roles';
  const received = await target.issuing.call(doing, { method: 'LIST', path: 'auth/token/roles' }, signal, [200, 404]);
  if (received.status === 404) return [];
  const parsed = rolesSchema.safeParse(received.body);
  if (!parsed.success) throw unreadable(doing);
  return parsed.data.data.keys.slice(0, mostRoles);
}

/** Where tokens are made: of them the end of a grant knows nothing. */
export function makingPaths({ token_role: own }: VaultTarget, roles: readonly string[] = []): readonly string[] {
  const all = new Set([own, probe, ...roles]);
  return ['auth/token/create', 'auth/token/create-orphan', ...[...all].map((role) => `auth/token/create/${role}`)];
}

/** Where a token's own end is moved. */
export const renewingPaths = ['auth/token/renew-self', 'auth/token/renew', 'auth/token/renew-accessor'] as const;

/** Where somebody can make himself more than he is, or spoil what the broker notes. None of it is an agent's. */
export function rulingPaths({ auth, token_role: own, record }: VaultTarget): readonly string[] {
  const { mount } = 'approle' in auth ? auth.approle : 'kubernetes' in auth ? auth.kubernetes : auth.jwt;
  return [
    ...['sys/policies/acl', `sys/policies/acl/${probe}`, `sys/policy/${probe}`, 'sys/mounts', `sys/mounts/${probe}`],
    ...[`sys/auth/${probe}`, 'sys/seal', `sys/raw/${probe}`, `sys/leases/revoke-force/${probe}`],
    ...[`sys/leases/revoke-prefix/${probe}`, 'auth/token/accessors', 'auth/token/revoke-accessor'],
    ...[`auth/token/roles/${own}`, `auth/token/roles/${probe}`, 'identity/entity', 'identity/group'],
    ...[brokerName, probe].flatMap((role) => [`auth/${mount}/role/${role}`, `auth/${mount}/role/${role}/secret-id`]),
    ...(record === 'none' ? [] : [`${record.mount}/data/holder`, `${record.mount}/data/minting/${probe}`]),
  ];
}

/**
 * What a token makes outlives it, where the role makes orphans, and bears no mark. Asked at each mint, since policies change.
 * @throws ProviderError `misconfigured` when the policies of this one let it.
 */
export async function assertMakesNoTokens(target: Target, accessor: string, signal: AbortSignal): Promise<void> {
  const paths = makingPaths(target.config);
  const may = await capabilities(target, paths, signal, accessor);
  const open = paths.filter((path) => may(path).length > 0);
  if (open.length > 0)
    throw new ProviderError(
      'misconfigured',
      `making a token: its policies let it make others, which would outlive the grant (${open.join(', ')})`,
    );
}
