import {
  type PreparedBy,
  type PreparedEntitlement,
  type Preparation,
  ProviderError,
  type Secret,
  within,
} from '../../src/provider.ts';
import { z } from 'zod';
import { Node } from './client.ts';
import { refusal } from './errors.ts';
import { agentPolicies, brokerRights, policyText } from './policy.ts';
import type { VaultEntitlement, VaultTarget } from './schema.ts';

/** The policy and the login role of the broker bear this name. */
const brokerName = 'mayfly-broker';

/** Seconds that the broker's token lives without a renewal. It is renewed at half of that. */
const period = 3600;
/** Seconds that no token of the role lives longer than, however often it is renewed: Vault itself holds to the role's alone. */
const leastMax = 86_400;
const applyMillis = 30_000;

type Entitlements = readonly PreparedEntitlement<VaultEntitlement>[];

interface Write {
  readonly says: string;
  readonly path: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** Not when this can be read. */
  readonly unless?: string;
}

export const preparation: Preparation<VaultTarget, VaultEntitlement> = {
  script: async (target, entitlements, installation, _secret, by) => script(target, entitlements, installation, by),
  apply,
};

function writes(target: VaultTarget, entitlements: Entitlements): readonly Write[] {
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

function script(
  target: VaultTarget,
  entitlements: Entitlements,
  installation: string,
  by: PreparedBy | undefined,
): string {
  const lines = [
    '#!/bin/sh',
    '# For an administrator: BAO_ADDR, BAO_TOKEN and, where there is one, BAO_NAMESPACE say where and who. BAO=vault for that client.',
    '# It can be run again. Policies of agents are yours: it writes none.',
    'set -eu',
    'bao=${BAO:-bao}',
  ];
  for (const { says, path, data, unless } of writes(target, entitlements)) {
    const before = unless === undefined ? '' : `"$bao" read ${unless} >/dev/null 2>&1 || `;
    lines.push('', `# ${says}`, `${before}"$bao" write ${path} - <<'JSON'`, JSON.stringify(data, null, 2), 'JSON');
  }
  if (target.record !== 'none') lines.push('', ...holderScript(target.record.mount, installation, by));
  if ('approle' in target.auth) {
    const { mount, secret_id: reference } = target.auth.approle;
    lines.push(
      '',
      `# The broker's secret id, for ${reference}. Each run makes another; the old ones stay good until they are destroyed.`,
      `# "$bao" write -f -field=secret_id auth/${mount}/role/${brokerName}/secret-id`,
    );
  }
  return `${lines.join('\n')}\n`;
}

function holderScript(mount: string, installation: string, by: PreparedBy | undefined): readonly string[] {
  const record = (epoch: string): string =>
    JSON.stringify({
      data: { installation, epoch: 0, store: by?.store ?? null, tenure: by?.tenure ?? null, beat: 0 },
    }).replace('"epoch":0', `"epoch":${epoch}`);
  const field = (name: string): string => `"$bao" kv get -mount=${mount} -field=${name} holder 2>/dev/null || true`;
  if (by?.tenure !== undefined)
    return [
      '# Adopted: whoever held it before can do nothing here any more.',
      `epoch=$(${field('epoch')})`,
      `"$bao" write ${mount}/data/holder - <<JSON`,
      record('$((${epoch:-0} + 1))'),
      'JSON',
    ];
  return [
    '# Who holds it. What another installation holds is left alone: only if that one is gone, mayfly target adopt.',
    `held=$(${field('installation')})`,
    `if [ -z "$held" ]; then`,
    `"$bao" write ${mount}/data/holder - <<'JSON'`,
    record('1'),
    'JSON',
    `elif [ "$held" != ${installation} ]; then echo "held by installation $held" >&2; exit 1; fi`,
  ];
}

const holderSchema = z.object({
  data: z.object({ data: z.object({ installation: z.string(), epoch: z.int(), store: z.string().nullable() }) }),
});

/** @param adminUrl With an administrator's token as its password: `https://:TOKEN@host:8200`. */
async function apply(
  adminUrl: Secret<string>,
  target: VaultTarget,
  entitlements: Entitlements,
  installation: string,
  _secret: Secret<string>,
  by?: PreparedBy,
): Promise<void> {
  const given = URL.canParse(adminUrl.reveal()) ? new URL(adminUrl.reveal()) : undefined;
  if (given === undefined || given.password === '')
    throw new ProviderError('misconfigured', 'the admin URL must be https://:TOKEN@host:port');
  const options = { namespace: target.namespace, ca: () => undefined, connectMillis: 5000, totalMillis: 10_000 };
  const node = new Node(given.origin, options);
  const signal = within(applyMillis);
  const token = decodeURIComponent(given.password);
  const ask = async (method: 'GET' | 'POST', path: string, data?: Readonly<Record<string, unknown>>) =>
    await node.ask({ method, path, token, signal, ...(data === undefined ? {} : { data }) });
  try {
    for (const { path, data, unless } of writes(target, entitlements)) {
      if (unless !== undefined && (await ask('GET', unless)).status === 200) continue;
      const received = await ask('POST', path, data);
      if (received.status !== 200 && received.status !== 204) throw refusal(received, `preparing: writing ${path}`);
    }
    if (target.record === 'none') return;
    const path = `${target.record.mount}/data/holder`;
    const read = await ask('GET', path);
    if (read.status !== 200 && read.status !== 404) throw refusal(read, `preparing: reading ${path}`);
    const held = holderSchema.safeParse(read.body).data?.data.data;
    if (by?.tenure === undefined && held !== undefined) {
      if (held.installation !== installation || (by !== undefined && held.store !== null && held.store !== by.store))
        throw new ProviderError(
          'misconfigured',
          `preparing: another holds the target (${held.installation}): mayfly target adopt`,
        );
      return;
    }
    const record = {
      installation,
      epoch: (held?.epoch ?? 0) + 1,
      store: by?.store ?? null,
      tenure: by?.tenure ?? null,
      beat: 0,
    };
    const written = await ask('POST', path, { data: record });
    if (written.status !== 200) throw refusal(written, `preparing: writing ${path}`);
  } finally {
    node.close();
  }
}
