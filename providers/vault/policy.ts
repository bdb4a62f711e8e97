import type { PreparedEntitlement } from '../../src/provider.ts';
import type { VaultEntitlement, VaultTarget } from './schema.ts';

export type Capability = 'create' | 'read' | 'update' | 'delete' | 'list' | 'sudo';
/** The policy and the login role of the broker bear this name. */
export const brokerName = 'mayfly-broker';

type Entitlements = readonly Pick<PreparedEntitlement<VaultEntitlement>, 'config'>[];

/** Each path that the broker's own token may go, and what it may do there. Nothing of what agents may. */
export function brokerRights(
  target: VaultTarget,
  entitlements: Entitlements,
): ReadonlyMap<string, readonly Capability[]> {
  const rights = new Map<string, readonly Capability[]>([
    ['auth/token/lookup-self', ['read']],
    ['auth/token/renew-self', ['update']],
    [`auth/token/create/${target.token_role}`, ['create', 'update']],
    [`auth/token/roles/${target.token_role}`, ['read']],
    ['auth/token/lookup-accessor', ['create', 'update']],
    ['auth/token/renew-accessor', ['create', 'update']],
    ['auth/token/revoke-accessor', ['create', 'update']],
    // Only so are tokens found by their metadata. Vault asks for sudo there.
    ['auth/token/accessors', ['list', 'sudo']],
    ['auth/token/accessors/', ['list', 'sudo']],
    ['sys/leases/lookup', ['create', 'update']],
    ['sys/leases/renew', ['create', 'update']],
    ['sys/leases/revoke', ['create', 'update']],
    ['sys/mounts', ['read']],
    ['sys/wrapping/wrap', ['create', 'update']],
    ['sys/capabilities-self', ['create', 'update']],
    // What agents' policies let them do, and by which roles they might.
    ['sys/capabilities-accessor', ['create', 'update']],
    ['auth/token/roles', ['list']],
    ['auth/token/roles/', ['list']],
  ]);
  if (target.record !== 'none') {
    const { mount } = target.record;
    // It changes the record, and can not begin another.
    rights.set(`${mount}/data/holder`, ['read', 'update']);
    rights.set(`${mount}/data/minting/*`, ['create', 'read', 'update']);
    rights.set(`${mount}/metadata/minting/*`, ['delete']);
    rights.set(`${mount}/metadata/minting`, ['list']);
    rights.set(`${mount}/metadata/minting/`, ['list']);
  }
  for (const path of leasePrefixes(entitlements)) {
    rights.set(`sys/leases/lookup/${path}`, ['list', 'sudo']);
    rights.set(`sys/leases/lookup/${path}/`, ['list', 'sudo']);
    // An engine may keep them in folders.
    rights.set(`sys/leases/lookup/${path}/*`, ['list', 'sudo']);
  }
  return rights;
}

/** Where leases of grants may stand; `+` for a segment that a param fills. */
function leasePrefixes(entitlements: Entitlements): readonly string[] {
  const paths = entitlements.flatMap(({ config }) => {
    if (config.mode === 'dynamic') return [config.path];
    return config.mode === 'token' ? config.lease_paths : [];
  });
  return [...new Set(paths.map((path) => path.replaceAll(/[^/]*\$\{[^/]*/g, '+')))].sort();
}

/** As HCL. */
export function policyText(rights: ReadonlyMap<string, readonly Capability[]>): string {
  return [...rights]
    .map(
      ([path, capabilities]) =>
        `path "${path}" { capabilities = [${capabilities.map((one) => `"${one}"`).join(', ')}] }`,
    )
    .join('\n');
}

/** What the token role may give out. */
export function agentPolicies(entitlements: Entitlements): readonly string[] {
  return [...new Set(entitlements.flatMap(({ config }) => config.policies))].sort();
}
