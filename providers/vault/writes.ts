import { type PreparedEntitlement, ProviderError } from '../../src/provider.ts';
import { agentPolicies, brokerName, brokerRights, policyText } from './policy.ts';
import type { VaultEntitlement, VaultTarget } from './schema.ts';

/** Seconds that the broker's token lives without a renewal. It is renewed at half of that. */
const period = 3600;
/** Seconds that no token of the role lives longer than, however often it is renewed: Vault itself holds to the role's alone. */
const leastMax = 86_400;
export type Entitlements = readonly PreparedEntitlement<VaultEntitlement>[];

/** One thing that an administrator writes. */
export interface Write {
  readonly says: string;
  readonly path: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Not when this can be read. */
  readonly unless?: string;
}

/** What makes a target ready, in order. @throws ProviderError */
export function writes(target: VaultTarget, entitlements: Entitlements): readonly Write[] {
  refuseUnboundParams(entitlements);
  const longest = Math.max(leastMax, ...entitlements.map(({ maxTtlSeconds }) => maxTtlSeconds));
  const { record } = target;
  return [
    {
      says: 'What the broker itself may do. Nothing of what agents may.',
      path: `sys/policies/acl/${brokerName}`,
      data: { policy: policyText(brokerRights(target, entitlements)) },
    },
    {
      says: 'How the tokens of grants are made: with these policies and no others. Orphans, so that a broker that is replaced takes none along.',
      path: `auth/token/roles/${target.token_role}`,
      data: {
        ...{ allowed_policies: agentPolicies(entitlements), orphan: true, renewable: true, token_type: 'service' },
        ...{ token_no_default_policy: true, token_explicit_max_ttl: `${longest}s` },
      },
    },
    ...(record === 'none'
      ? []
      : [
          {
            says: 'Where it stands who holds the target.',
            ...{ path: `sys/mounts/${record.mount}`, unless: `sys/mounts/${record.mount}` },
            data: { type: 'kv', options: { version: '2' }, description: 'Mayfly: who holds this target' },
          },
        ]),
    ...loginWrites(target),
  ];
}

/** @throws ProviderError for a param that would enter nothing. */
function refuseUnboundParams(entitlements: Entitlements): void {
  for (const { name, config, params } of entitlements) {
    const text = config.mode === 'token' ? '' : config.path;
    const unbound = Object.keys(params ?? {}).filter((param) => !text.includes(`\${${param}}`));
    if (unbound.length > 0)
      throw new ProviderError(
        'misconfigured',
        `${name}: nothing binds the params ${unbound.join(', ')}; only a path does`,
      );
  }
}

function loginWrites({ auth }: VaultTarget): readonly Write[] {
  const token = {
    token_policies: [brokerName],
    token_no_default_policy: true,
    token_period: period,
    token_type: 'service',
  };
  if ('approle' in auth) {
    const { mount, role_id: roleId } = auth.approle;
    return [
      {
        says: 'How the broker logs in.',
        path: `sys/auth/${mount}`,
        unless: `sys/auth/${mount}`,
        data: { type: 'approle' },
      },
      { says: 'Its role.', path: `auth/${mount}/role/${brokerName}`, data: { ...token, bind_secret_id: true } },
      {
        says: 'With the id that the catalog names.',
        path: `auth/${mount}/role/${brokerName}/role-id`,
        data: { role_id: roleId },
      },
    ];
  }
  if ('kubernetes' in auth) {
    const { mount, role } = auth.kubernetes;
    const bound = { bound_service_account_names: ['mayfly'], bound_service_account_namespaces: ['mayfly'] };
    return [
      {
        says: 'How the broker logs in. Its config (kubernetes_host, …) is yours.',
        path: `sys/auth/${mount}`,
        unless: `sys/auth/${mount}`,
        data: { type: 'kubernetes' },
      },
      {
        says: 'Its service account: change the names if yours are others.',
        path: `auth/${mount}/role/${role}`,
        data: { ...token, ...bound },
      },
    ];
  }
  const { mount, role } = auth.jwt;
  return [
    {
      says: 'How the broker logs in. Its config (oidc_discovery_url or keys) is yours.',
      path: `sys/auth/${mount}`,
      unless: `sys/auth/${mount}`,
      data: { type: 'jwt' },
    },
    {
      says: 'Who may: change audience and subject to yours.',
      path: `auth/${mount}/role/${role}`,
      data: { ...token, role_type: 'jwt', user_claim: 'sub', bound_audiences: ['vault'], bound_subject: 'mayfly' },
    },
  ];
}
