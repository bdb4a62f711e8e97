import { randomBytes } from 'node:crypto';
import { type CheckStep, type Minted, ProviderError, type Ref, within } from '../../src/provider.ts';
import { fence } from './fence.ts';
import { factsOf, handleOf } from './handle.ts';
import { lookUpLease } from './leases.ts';
import { mint } from './mint.ts';
import { placeholdersOf } from './path.ts';
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

/** One life of an entitlement, from mint to verified end. Nothing of it is left, whatever fails on the way. */
export async function canary(
  target: Target,
  entitlement: string,
  config: VaultEntitlement,
  signal: AbortSignal,
): Promise<readonly CheckStep[]> {
  const steps: CheckStep[] = [];
  const bound = config.mode === 'token' ? [] : placeholdersOf(config.path);
  if (bound.length > 0) {
    const says = `it is bound to ${bound.join(', ')}: without a value that is real nothing can be read, and none is tried`;
    return [{ step: 'mint', ok: true, warns: true, says }];
  }
  const grantId = timedId();
  const deadline = new Date(Date.now() + life * 1000);
  let ref: Ref = { grantId, handle: handleOf(grantId), facts: null, deadline };
  try {
    const request = { grantId, entitlement, config, params: {}, deadline, notAfter: deadline, mintBy: deadline };
    const minted = await mint(target, ref, request, signal);
    ref = { ...ref, facts: minted.facts };
    steps.push({ step: 'mint', ok: true, says: `${ref.handle} was made` });
    await use(steps, target, config, ref, minted, signal);
    await end(steps, target, config, ref, minted, within(endMillis));
  } catch (error) {
    steps.push({ step: ref.facts === null ? 'mint' : 'canary', ok: false, says: saysOf(error) });
    await end(steps, target, config, ref, null, within(endMillis)).catch((failed: unknown) =>
      steps.push({ step: 'end', ok: false, says: saysOf(failed) }),
    );
  }
  return steps;
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

function tokenOf(minted: Minted | null): string | undefined {
  const token = minted?.secret.reveal()['token'];
  return typeof token === 'string' ? token : undefined;
}

async function use(
  steps: CheckStep[],
  target: Target,
  config: VaultEntitlement,
  ref: Ref,
  minted: Minted,
  signal: AbortSignal,
): Promise<void> {
  const facts = factsOf(ref);
  const known = facts === null ? null : await lookUp(target, facts.accessor, signal);
  steps.push({
    step: 'known',
    ok: known !== null,
    says: known === null ? 'Vault does not know its token' : `Vault ends it in ${known.ttl} s`,
  });
  if (facts?.lease_id !== undefined) {
    const lease = await lookUpLease(target, facts.lease_id, signal);
    steps.push({
      step: 'lease',
      ok: lease !== null,
      says: lease === null ? 'Vault does not know its lease' : `its lease ends in ${lease.ttl} s`,
    });
  }
  const token = config.mode === 'token' && config.wrap_seconds === undefined ? tokenOf(minted) : undefined;
  if (token === undefined || config.mode !== 'token') return;
  if (config.probe_path !== undefined) {
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
  const renewed = await target.issuing.status(
    token,
    { method: 'POST', path: 'auth/token/renew-self', data: { increment: '1s' } },
    signal,
  );
  steps.push({
    step: 'renew_self',
    ok: renewed !== 200,
    says:
      renewed === 200
        ? 'its policies let it renew itself past its deadline (auth/token/renew-self)'
        : 'it can not renew itself',
  });
}

async function end(
  steps: CheckStep[],
  target: Target,
  config: VaultEntitlement,
  ref: Ref,
  minted: Minted | null,
  signal: AbortSignal,
): Promise<void> {
  const [fenced] = await fence(target, [ref], signal);
  steps.push({
    step: 'fence',
    ok: fenced?.ok === true,
    says: fenced?.ok === true ? 'token and lease revoked' : saysOf(fenced?.error),
  });
  const token = config.mode === 'token' ? tokenOf(minted) : undefined;
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
  const gone = verdict?.ok === true && verdict.contained;
  const waits = expires !== undefined && verdict?.ok === true;
  const says = gone
    ? 'gone, by accessor and by lease'
    : waits
      ? `Vault has forgotten it; it is good until ${expires}`
      : 'something of it is left';
  steps.push({ step: 'verify', ok: gone || waits, says: verdict?.ok === false ? saysOf(verdict.error) : says });
}
