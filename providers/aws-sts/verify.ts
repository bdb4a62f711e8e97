import { ProviderError, type Ref, type Verdict } from '../../src/provider.ts';
import type { Denial } from './denial.ts';
import { classify } from './errors.ts';
import { hear } from './hear.ts';
import { issuedMillis } from './issued.ts';
import type { Target } from './target.ts';

interface RoleSeen {
  readonly uniqueId: string;
  readonly denied: Denial;
  readonly proof: { readonly generation: number; readonly at: Date } | null;
}

/**
 * Contained is what is powerless by its own session policy, on AWS's clock with skew to spare; or what the fence that stands denies,
 * where a probe that the same document denies was seen refused while its sibling was let through. `GetCallerIdentity` would prove
 * nothing: it is answered under every denial.
 */
export async function verify(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Verdict[]> {
  try {
    // Without a word of AWS nothing is over.
    await hear(target, target.config.fence === 'none' ? 'sts' : 'iam', signal);
  } catch (error) {
    return refs.map(({ handle }) => ({ handle, ok: false, error: classify(error, 'verifying') }));
  }
  const seen = new Map<string, Promise<RoleSeen>>();
  const look = (role: string): Promise<RoleSeen> => {
    const known = seen.get(role);
    if (known !== undefined) return known;
    const looking = lookAt(target, role, signal);
    seen.set(role, looking);
    return looking;
  };
  return await Promise.all(
    refs.map(async (ref): Promise<Verdict> => {
      try {
        return { handle: ref.handle, ...(await verdictOf(target, ref, look)) };
      } catch (error) {
        return { handle: ref.handle, ok: false, error: classify(error, 'verifying') };
      }
    }),
  );
}

async function verdictOf(target: Target, ref: Ref, look: (role: string) => Promise<RoleSeen>): Promise<Verdict> {
  const powerlessAt = new Date(target.powerlessAt(ref)).toISOString();
  if (target.isPowerless(ref)) {
    // What lost its facts is first contained by that, then reaped, and clean after it.
    const clean = ref.facts !== null || target.reaped.has(ref.handle);
    return {
      ok: true,
      contained: true,
      clean,
      open: false,
      evidence: { powerless_since: powerlessAt, by: 'deadline' },
    };
  }
  const open = { ok: true, contained: false, clean: false, open: true } as const;
  if (target.config.fence === 'none') return { ...open, evidence: { powerless_at: powerlessAt } };
  const roles = target.rolesOf(ref);
  const looks = await Promise.all(roles.map(look));
  for (const { uniqueId } of looks) {
    const strayed = target.strayed(ref, uniqueId);
    if (strayed !== null) throw strayed;
  }
  const issuedBy = issuedMillis(ref.facts);
  const seen = looks.map(({ denied, proof }) => ({ since: denied.since(ref.handle, issuedBy), proof }));
  if (seen.some(({ since }) => since === null)) {
    // What another broker denies was not let in again; that it is in force is for this one to see of its own.
    const elsewhere = looks.every(({ denied }) => denied.anywhere(ref.handle, issuedBy));
    return { ...open, open: !elsewhere, evidence: { denied: elsewhere, powerless_at: powerlessAt } };
  }
  const first = seen[0]?.proof ?? null;
  const proven = seen.every(({ since, proof }) => proof !== null && since !== null && since <= proof.generation);
  if (first === null || !proven)
    return { ...open, evidence: { denied: true, probe_refused: false, powerless_at: powerlessAt } };
  return {
    ok: true,
    contained: true,
    clean: false,
    open: false,
    evidence: {
      ...{ by: 'fence', generation: first.generation, probe: target.config.probe.action },
      ...{ probe_refused: 3, sibling: 'allowed', proven_at: first.at.toISOString(), powerless_at: powerlessAt },
    },
  };
}

async function lookAt(target: Target, role: string, signal: AbortSignal): Promise<RoleSeen> {
  const fence = target.fenceOf(role);
  const { uniqueId } = await target.identify(role, signal);
  // A fence that was tampered with is not worth a probe.
  await fence.standing(signal);
  if (fence.alarm !== undefined) throw new ProviderError('misconfigured', fence.alarm);
  const proof = await fence.prove(signal);
  // Last: what is denied now, by the document that was proven or by one after it.
  const denied = await fence.standing(signal);
  if (fence.alarm !== undefined) throw new ProviderError('misconfigured', fence.alarm);
  return { uniqueId, denied, proof };
}
