import { z } from 'zod';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import { canary } from './canary.ts';
import { brokerRights } from './policy.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';

/** Seconds that the target's clock may be away: its answers tell it in whole seconds. */
const tolerableSkew = 5;
/** Where nothing of a broker's belongs. */
const forbidden = [
  'sys/policies/acl/mayfly-probe',
  'sys/mounts/mayfly-probe',
  'sys/auth/mayfly-probe',
  'sys/seal',
  'sys/raw/mayfly-probe',
  'sys/leases/revoke-force/mayfly-probe',
  'auth/token/create',
  'auth/token/create-orphan',
];

const selfSchema = z.object({
  data: z.object({
    policies: z.array(z.string()),
    period: z.number().nullish(),
    ttl: z.number(),
    renewable: z.boolean().nullish(),
  }),
});
const roleSchema = z.object({
  data: z.object({
    allowed_policies: z.array(z.string()).nullish(),
    orphan: z.boolean(),
    token_type: z.string(),
    token_explicit_max_ttl: z.number().nullish(),
  }),
});
const capabilitiesSchema = z.object({ data: z.record(z.string(), z.array(z.string())) });

/**
 * Looks at the target, then, with an entitlement, plays one life of it: mint, use, be refused, end, verify. Every finding is a
 * step; what could not be tried is a step that failed.
 */
export async function check(
  target: Target,
  entitlement: { readonly name: string; readonly config: VaultEntitlement } | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const steps: CheckStep[] = [];
  const attempt = async (step: string, work: () => Promise<readonly CheckStep[]>): Promise<boolean> => {
    try {
      steps.push(...(await work()));
      return true;
    } catch (error) {
      steps.push({ step, ok: false, says: error instanceof ProviderError ? error.message : 'failed' });
      return false;
    }
  };
  if (!(await attempt('connect', () => connection(target, signal)))) return steps;
  if (!(await attempt('broker_token', () => ownToken(target, signal)))) return steps;
  await attempt('broker_rights', () => rights(target, entitlement?.config ?? null, signal));
  await attempt('token_role', () => role(target, entitlement?.config ?? null, signal));
  await attempt('holder', () => holder(target, signal));
  if (entitlement !== null) steps.push(...(await canary(target, entitlement.name, entitlement.config, signal)));
  return steps;
}

async function connection(target: Target, signal: AbortSignal): Promise<readonly CheckStep[]> {
  const asked = Date.now();
  const { address, version, cluster_id: clusterId, standby, date } = await target.issuing.health(signal);
  const skew = date === null ? null : (date.getTime() + 500 - (asked + Date.now()) / 2) / 1000;
  return [
    {
      step: 'connect',
      ok: true,
      ...(standby ? { warns: true } : {}),
      says: `${address}, version ${version}, cluster ${clusterId}${standby ? ', a standby: it must forward requests' : ''}`,
    },
    {
      step: 'clock',
      ok: skew !== null && Math.abs(skew) <= tolerableSkew,
      says:
        skew === null
          ? 'it does not tell its time'
          : `the target's clock is ${Math.abs(skew).toFixed(1)} s ${skew < 0 ? 'behind' : 'ahead'} (± 0.5 s)`,
    },
  ];
}

async function ownToken(target: Target, signal: AbortSignal): Promise<readonly CheckStep[]> {
  const received = await target.issuing.call(
    'looking up its own token',
    { method: 'GET', path: 'auth/token/lookup-self' },
    signal,
    [200],
  );
  const { policies, period, ttl, renewable } = selfSchema.parse(received.body).data;
  const { trouble } = target.token.standing;
  const root = policies.includes('root');
  const kept = renewable === true && (period ?? 0) > 0;
  return [
    {
      step: 'broker_token',
      ok: !root && trouble === undefined,
      ...(kept || root ? {} : { warns: true }),
      says: root
        ? 'the token of the broker is a root token'
        : `policies ${policies.join(', ')}; ${kept ? `periodic, ${period} s` : `it can not be renewed for ever (${ttl} s are left): a login follows`}${trouble === undefined ? '' : `; ${trouble}`}`,
    },
  ];
}

async function rights(
  target: Target,
  config: VaultEntitlement | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  // A wildcard can not be asked about: one that fits it is.
  const needed = [...brokerRights(target.config, config === null ? [] : [{ config }])].map(
    ([path, wanted]) => [path.replace(/\*$/, 'mayfly-probe').replaceAll('+', 'mayfly-probe'), wanted] as const,
  );
  const paths = [...needed.map(([path]) => path), ...forbidden];
  const call = { method: 'POST', path: 'sys/capabilities-self', data: { paths } } as const;
  const { data } = capabilitiesSchema.parse(
    (await target.issuing.call('asking for its rights', call, signal, [200])).body,
  );
  const has = (path: string): readonly string[] => data[path] ?? [];
  const missing = needed.filter(
    ([path, wanted]) =>
      !has(path).includes('root') &&
      !wanted.every((one) => has(path).includes(one) || (one === 'create' && has(path).includes('update'))),
  );
  const excess = forbidden.filter((path) => has(path).some((one) => one !== 'deny'));
  return [
    {
      step: 'broker_rights',
      ok: missing.length === 0,
      says:
        missing.length === 0
          ? 'it may do all that it must'
          : `it may not do what it must at ${missing.map(([path]) => path).join(', ')} (mayfly target prepare)`,
    },
    {
      step: 'broker_excess',
      ok: excess.length === 0,
      says:
        excess.length === 0
          ? 'it may do nothing that it must not'
          : `it may do more than it must at ${excess.join(', ')}`,
    },
  ];
}

async function role(
  target: Target,
  config: VaultEntitlement | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const name = target.config.token_role;
  const call = { method: 'GET', path: `auth/token/roles/${name}` } as const;
  const found = roleSchema.parse((await target.issuing.call('reading the token role', call, signal, [200])).body).data;
  const allowed = found.allowed_policies ?? [];
  const lacking = (config?.policies ?? []).filter((policy) => !allowed.includes(policy));
  const faults = [
    ...(found.token_type === 'service' ? [] : [`makes tokens of type ${found.token_type}`]),
    ...(allowed.length === 0 ? ['allows any policy'] : []),
    ...(lacking.length > 0 ? [`does not allow ${lacking.join(', ')}`] : []),
    ...((found.token_explicit_max_ttl ?? 0) > 0
      ? []
      : ['has no token_explicit_max_ttl, which alone holds a renewed token to an end']),
  ];
  return [
    {
      step: 'token_role',
      ok: faults.length === 0,
      ...(found.orphan ? {} : { warns: true }),
      says:
        faults.length > 0
          ? `${name} ${faults.join('; ')}`
          : `${name} allows ${allowed.length} policies${found.orphan ? '' : '; its tokens end with that of the broker (orphan is false)'}`,
    },
  ];
}

async function holder(target: Target, signal: AbortSignal): Promise<readonly CheckStep[]> {
  if (target.record === null)
    return [
      {
        step: 'holder',
        ok: true,
        warns: true,
        says: 'it keeps no record of its holder: a grant that a crash left half made is never proven gone',
      },
    ];
  const held = await target.record.hold(target.issuing, signal, undefined);
  const ours = held.installation === target.context.installation;
  return [
    {
      step: 'holder',
      ok: ours,
      says: ours ? `held by this installation, epoch ${held.epoch}` : `held by installation ${held.installation}`,
    },
  ];
}
