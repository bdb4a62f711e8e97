import { randomBytes } from 'node:crypto';
import { z } from 'zod';
import { type CheckStep, type Minted, ProviderError, type Ref, within } from '../../src/provider.ts';
import { refusal } from './errors.ts';
import { fence } from './fence.ts';
import { factsOf, handleOf } from './handle.ts';
import { lookUpLease } from './leases.ts';
import { mint } from './mint.ts';
import { placeholdersOf } from './path.ts';
import { capabilities, makingPaths, renewingPaths, rulingPaths, tokenRoles } from './powers.ts';
import { reap } from './reap.ts';
import type { VaultEntitlement } from './schema.ts';
import type { Target } from './target.ts';
import { lookUp } from './tokens.ts';
import { verify } from './verify.ts';

/** Seconds that a canary lives at most, if this process dies in the middle. */
const life = 60;
/** The end has a patience of its own: it must happen also when the rest used up the caller's. */
const endMillis = 20_000;
/** What no agent's token may. */
const refusedPaths = ['sys/policies/acl', 'sys/mounts', 'auth/token/accessors?list=true'];

interface Tried {
  readonly config: VaultEntitlement;
  readonly params: Readonly<Record<string, string>>;
  /** What can not be tried of it. */
  readonly untried: readonly CheckStep[];
}

/** One life of an entitlement, from mint to verified end. Nothing of it is left, whatever fails on the way. */
export async function canary(
  whole: Target,
  entitlement: string,
  declared: VaultEntitlement,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const { config, params, untried } = triedOf(declared);
  const steps: CheckStep[] = [...untried];
  const grantId = timedId();
  const deadline = new Date(Date.now() + life * 1000);
  let ref: Ref = { grantId, handle: handleOf(grantId, whole.place), facts: null, deadline };
  try {
    const request = { grantId, entitlement, config, params, deadline, notAfter: deadline, mintBy: deadline };
    const target = await whole.pinned('issuing', signal);
    const minted = await mint(target, ref, request, signal);
    ref = { ...ref, facts: minted.facts };
    steps.push({ step: 'mint', ok: true, says: `${ref.handle} was made` });
    await look(steps, target, ref, signal);
    await powers(steps, target, ref, signal);
    const token = await tokenOf(steps, target, config, minted, signal);
    await use(steps, target, config, token, signal);
    await end(steps, whole, config, ref, token);
  } catch (error) {
    steps.push({ step: ref.facts === null ? 'mint' : 'canary', ok: false, says: saysOf(error) });
    await end(steps, whole, config, ref, undefined).catch((failed: unknown) =>
      steps.push({ step: 'end', ok: false, says: saysOf(failed) }),
    );
  }
  return steps;
}

/** Without values that are real nothing can be read: then a token with its policies lives that life. */
function triedOf(config: VaultEntitlement): Tried {
  if (config.mode === 'token') return { config, params: {}, untried: [] };
  const bound = placeholdersOf(config.path);
  const { probe_params: params } = config;
  if (bound.length === 0) return { config, params: {}, untried: [] };
  if (params !== undefined) return { config, params, untried: [] };
  const { policies } = config;
  const says = `it is bound to ${bound.join(', ')}: without a value that is real (probe_params) nothing is read, and its policies alone are tried`;
  return {
    config: { mode: 'token', policies, lease_paths: [] },
    params: {},
    untried: [{ step: 'read', ok: true, warns: true, says }],
  };
}

/** A UUIDv7, as those of grants: what was intended when is told by it. */
function timedId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  const random = randomBytes(10).toString('hex');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(0, 3)}-8${random.slice(3, 6)}-${random.slice(6, 18)}`;
}

function saysOf(error: unknown): string {
  return error instanceof ProviderError ? error.message : 'failed';
}

async function look(steps: CheckStep[], target: Target, ref: Ref, signal: AbortSignal): Promise<void> {
  const facts = factsOf(ref);
  const known = facts === null ? null : await lookUp(target, facts.accessor, signal);
  steps.push({
    step: 'known',
    ok: known !== null,
    says: known === null ? 'Vault does not know its token' : `Vault ends it in ${known.ttl} s`,
  });
  if (facts?.lease_id === undefined) return;
  const lease = await lookUpLease(target, facts.lease_id, signal);
  steps.push({
    step: 'lease',
    ok: lease !== null,
    says: lease === null ? 'Vault does not know its lease' : `its lease ends in ${lease.ttl} s`,
  });
}

/** By what Vault says of the token's policies: also of one that is wrapped, and of one that nobody is given. */
async function powers(steps: CheckStep[], target: Target, ref: Ref, signal: AbortSignal): Promise<void> {
  const facts = factsOf(ref);
  if (facts === null) return;
  const making = makingPaths(target.config, await tokenRoles(target, signal));
  const ruling = rulingPaths(target.config);
  const may = await capabilities(target, [...making, ...renewingPaths, ...ruling], signal, facts.accessor);
  const open = (paths: readonly string[]): string => paths.filter((path) => may(path).length > 0).join(', ');
  const made = open(making);
  steps.push({
    step: 'makes_tokens',
    ok: made === '',
    says: made === '' ? 'it can make no tokens' : `its policies let it make tokens that outlive it (${made})`,
  });
  const renewed = open(renewingPaths);
  steps.push({
    step: 'renew_self',
    ok: renewed === '',
    says:
      renewed === '' ? 'it can not renew itself' : `its policies let it renew itself past its deadline (${renewed})`,
  });
  const ruled = open(ruling);
  steps.push({
    step: 'rules',
    ok: ruled === '',
    says: ruled === '' ? 'it may change nothing by which it is held' : `it may go to ${ruled}`,
  });
}

/** The token that the agent would have; of a wrapped one by unwrapping it. */
async function tokenOf(
  steps: CheckStep[],
  target: Target,
  config: VaultEntitlement,
  minted: Minted,
  signal: AbortSignal,
): Promise<string | undefined> {
  const { token, wrapping_token: wrapping } = z
    .object({ token: z.string().optional(), wrapping_token: z.string().optional() })
    .parse(config.wrap_seconds === undefined && config.mode !== 'token' ? {} : minted.secret.reveal());
  if (wrapping === undefined) return token;
  const call = { method: 'POST', path: 'sys/wrapping/unwrap', data: {} } as const;
  const received = await target.issuing.as(wrapping, call, signal);
  if (received.status !== 200) throw refusal(received, 'unwrapping');
  const unwrapped = unwrappedSchema.safeParse(received.body);
  steps.push({ step: 'unwrap', ok: unwrapped.success, says: unwrapped.success ? 'it is unwrapped' : 'it is empty' });
  return unwrapped.data?.auth?.client_token;
}

const unwrappedSchema = z.object({ auth: z.object({ client_token: z.string() }).nullish() });

async function use(
  steps: CheckStep[],
  target: Target,
  config: VaultEntitlement,
  token: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (config.mode === 'dynamic') {
    const says =
      'what it gave is not tried where it is good: that it is taken away there is the engine’s word (look once yourself)';
    steps.push({ step: 'use', ok: true, warns: true, says });
  }
  if (token === undefined || config.mode !== 'token') return;
  if (config.probe_path === undefined)
    steps.push({ step: 'use', ok: true, warns: true, says: 'without a probe_path nothing is read with it' });
  else {
    const status = await target.issuing.status(token, { method: 'GET', path: config.probe_path }, signal);
    steps.push({
      step: 'use',
      ok: status === 200,
      says: status === 200 ? `it may read ${config.probe_path}` : `it may not read ${config.probe_path} (${status})`,
    });
  }
  const open: string[] = [];
  for (const path of refusedPaths)
    if ((await target.issuing.status(token, { method: 'GET', path }, signal)) === 200) open.push(path);
  steps.push({
    step: 'refused',
    ok: open.length === 0,
    says: open.length === 0 ? 'it may not look into what is not its own' : `it may read ${open.join(', ')}`,
  });
}

async function end(
  steps: CheckStep[],
  whole: Target,
  config: VaultEntitlement,
  ref: Ref,
  token: string | undefined,
): Promise<void> {
  const signal = within(endMillis);
  const target = await whole.pinned('revoking', signal);
  const [fenced] = await fence(target, [ref], signal);
  steps.push({
    step: 'fence',
    ok: fenced?.ok === true,
    says: fenced?.ok === true ? 'token and lease revoked' : saysOf(fenced?.error),
  });
  if (token !== undefined && config.mode === 'token' && config.probe_path !== undefined) {
    const status = await target.issuing.status(token, { method: 'GET', path: config.probe_path }, signal);
    steps.push({
      step: 'refused_after',
      ok: status === 403,
      says: status === 403 ? 'after its end it is refused' : `after its end it is answered (${status})`,
    });
  }
  const expires = factsOf(ref)?.native_expiry;
  const [verdict] = await verify(target, [ref], signal);
  await reap(target, [ref], signal);
  await target.confirm(signal);
  const gone = verdict?.ok === true && verdict.contained;
  const waits = expires !== undefined && verdict?.ok === true;
  const says = gone
    ? 'gone, by accessor and by lease'
    : waits
      ? `Vault has forgotten it; it is good until ${expires}`
      : 'something of it is left';
  steps.push({ step: 'verify', ok: gone || waits, says: verdict?.ok === false ? saysOf(verdict.error) : says });
}
