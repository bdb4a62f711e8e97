import { z } from 'zod';
import { type CheckStep, ProviderError } from '../../src/provider.ts';
import { canary } from './canary.ts';
import { brokerRights } from './policy.ts';
import type { VaultEntitlement } from './schema.ts';
import { capabilities, makingPaths, probe, rulingPaths, tokenRoles } from './powers.ts';
import type { Target } from './target.ts';

/** Seconds that the target's clock may be away: its answers tell it in whole seconds. */
const tolerableSkew = 5;
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
    token_period: z.number().nullish(),
    allowed_policies_glob: z.array(z.string()).nullish(),
    token_bound_cidrs: z.array(z.string()).nullish(),
    path_suffix: z.string().nullish(),
    token_num_uses: z.number().nullish(),
    renewable: z.boolean().nullish(),
  }),
});

/**
 * Looks at the target, then, with an entitlement, plays one life of it: mint, use, be refused, end, verify. Every finding is a
 * step; what can not be tried here is a step that warns.
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
  if (!(await attempt('broker_token', () => ownToken(target, entitlement?.config ?? null, signal)))) return steps;
  await attempt('broker_rights', () => rights(target, entitlement?.config ?? null, signal));
  await attempt('token_role', () => role(target, entitlement?.config ?? null, signal));
  await attempt('holder', () => holder(target, signal));
  if (entitlement !== null) steps.push(...(await canary(target, entitlement.name, entitlement.config, signal)));
  return steps;
}

async function connection(target: Target, signal: AbortSignal): Promise<readonly CheckStep[]> {
  const asked = Date.now();
  const there = await target.pinned('issuing', signal);
  const { address, version, cluster_id: clusterId, date } = await there.issuing.health(signal);
  const skew = date === null ? null : (date.getTime() + 500 - (asked + Date.now()) / 2) / 1000;
  return [
    { step: 'connect', ok: true, says: `${address}, version ${version}, cluster ${clusterId}` },
    ...(target.config.addresses.length === 1 ? [] : [await cluster(target, signal)]),
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

/** What one cluster does not know would be taken for gone, were it asked in the place of another. */
async function cluster(target: Target, signal: AbortSignal): Promise<CheckStep> {
  const all = await target.survey(signal);
  const named = all.flatMap(({ address, health }) => (health === undefined ? [] : [{ address, health }]));
  const clusters = new Set(named.map(({ health }) => health.cluster_id));
  const silent = all.filter(({ health }) => health === undefined).map(({ address }) => address);
  const heard = silent.length === 0 ? '' : `; nothing is heard of ${silent.join(', ')}`;
  return {
    step: 'cluster',
    ok: clusters.size === 1,
    ...(silent.length > 0 ? { warns: true } : {}),
    says:
      clusters.size === 1
        ? `${named.length} of ${all.length} addresses lead to one cluster${heard}`
        : `its addresses lead to ${clusters.size} clusters: ${named.map((one) => `${one.address} to ${one.health.cluster_id}`).join(', ')}${heard}`,
  };
}

async function ownToken(
  target: Target,
  config: VaultEntitlement | null,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
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
  const shared = (config?.policies ?? []).filter((policy) => policies.includes(policy));
  return [
    ...(shared.length === 0
      ? []
      : [{ step: 'policies', ok: false, says: `${shared.join(', ')}: of the broker itself, and not for agents` }]),
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
    ([path, wanted]) => [path.replace(/\*$/, probe).replaceAll('+', probe), wanted] as const,
  );
  const forbidden = await forbiddenPaths(target, config, signal);
  const has = await capabilities(target, [...new Set([...needed.map(([path]) => path), ...forbidden])], signal);
  const missing = needed.filter(
    ([path, wanted]) =>
      !has(path).includes('root') &&
      !wanted.every((one) => has(path).includes(one) || (one === 'create' && has(path).includes('update'))),
  );
  const right = new Map(needed);
  const excess = forbidden.filter((path) =>
    has(path).some((one) => !(right.get(path) ?? []).some((own) => own === one)),
  );
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
          ? `it may do nothing that it must not, of ${forbidden.length} paths that were asked about`
          : `it may do more than it must at ${excess.join(', ')}`,
    },
  ];
}

/** Where the broker must have no more than its own rights. */
async function forbiddenPaths(
  target: Target,
  config: VaultEntitlement | null,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const own = ((): readonly string[] => {
    switch (config?.mode) {
      case 'kv':
        return [`${config.mount}/${config.version === 2 ? 'data/' : ''}${config.path}`];
      case 'dynamic':
        return [config.path];
      default:
        return config?.probe_path === undefined ? [] : [config.probe_path];
    }
  })().map((path) => path.replaceAll(/\$\{[^}]*\}/g, probe));
  const policies = (config?.policies ?? []).map((policy) => `sys/policies/acl/${policy}`);
  const making = makingPaths(target.config, await tokenRoles(target, signal));
  return [...new Set([...making, ...rulingPaths(target.config), ...own, ...policies])];
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
    ...((found.allowed_policies_glob ?? []).length > 0 ? ['allows policies by a glob (allowed_policies_glob)'] : []),
    ...((found.token_period ?? 0) > 0 ? ['makes tokens that never need to end (token_period)'] : []),
    ...((found.path_suffix ?? '') === '' ? [] : ['has a path_suffix, so that its tokens are not found by their path']),
    ...((found.token_num_uses ?? 0) > 0 ? ['counts uses (token_num_uses)'] : []),
    ...(found.renewable === false ? ['makes tokens that can not be renewed'] : []),
    ...(lacking.length > 0 ? [`does not allow ${lacking.join(', ')}`] : []),
    ...((found.token_explicit_max_ttl ?? 0) > 0
      ? []
      : ['has no token_explicit_max_ttl, which alone holds a renewed token to an end']),
  ];
  const bound = found.token_bound_cidrs ?? [];
  const odd = [
    ...(found.orphan ? [] : ['its tokens end with that of the broker (orphan is false)']),
    ...(bound.length === 0
      ? []
      : [`its tokens are good from ${bound.join(', ')} alone: the broker must be there, too`]),
  ];
  return [
    {
      step: 'token_role',
      ok: faults.length === 0,
      ...(odd.length === 0 ? {} : { warns: true }),
      says:
        faults.length > 0
          ? `${name} ${faults.join('; ')}`
          : [`${name} allows ${allowed.length} policies`, ...odd].join('; '),
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
