import { type FenceOutcome, type FenceView, ProviderError, type Ref } from '../../src/provider.ts';
import { classify } from './errors.ts';
import { livingOn, tellOccupancy } from './fence.ts';
import { hear } from './hear.ts';
import type { Target } from './target.ts';

/** So often, at the least, what stands is looked at. */
const lookMillis = 300_000;

/** An entry leaves the fence when its grant is powerless by itself; before, that would let it back in. */
export async function reap(
  target: Target,
  refs: readonly Ref[],
  view: FenceView | undefined,
  signal: AbortSignal,
): Promise<readonly FenceOutcome[]> {
  if (view === undefined)
    throw new ProviderError('misconfigured', 'The fence of this target is one document about all: it needs a view.');
  try {
    await hear(target, target.config.fence === 'none' ? 'sts' : 'iam', signal);
  } catch (error) {
    return refs.map(({ handle }) => ({ handle, ok: false, error: classify(error, 'cleaning') }));
  }
  const over = refs.filter((ref) => target.isPowerless(ref));
  const failures = new Map<Ref, ProviderError>();
  const besides: string[] = [];
  if (target.config.fence !== 'none') {
    const roles = new Set(refs.flatMap((ref) => rolesOf(target, ref)));
    await Promise.all(
      [...roles].map(async (role) => {
        try {
          tellOccupancy(target, role, [], view);
          besides.push(...(await target.fenceOf(role).prune(livingOn(role, view), view, signal)));
        } catch (error) {
          for (const ref of over)
            if (rolesOf(target, ref).includes(role)) failures.set(ref, classify(error, 'cleaning'));
        }
      }),
    );
  }
  return refs.map((ref, index): FenceOutcome => {
    const also = index === 0 && besides.length > 0 ? { besides } : {};
    const powerlessAt = new Date(target.powerlessAt(ref));
    const error = failures.get(ref);
    if (error !== undefined) return { handle: ref.handle, ok: false, error, ...also };
    const evidence = { powerless_at: powerlessAt.toISOString() };
    if (!over.includes(ref)) {
      // One of them comes sooner: so the fence is looked at now and then, even where nothing else ends.
      const notBefore = looksAgain(target, powerlessAt) ?? target.clock.fromTarget(powerlessAt);
      return { handle: ref.handle, ok: true, evidence, notBefore, ...also };
    }
    target.renewedUntil.delete(ref.handle);
    if (ref.facts === null) target.reapedWithoutFacts(ref.handle);
    return { handle: ref.handle, ok: true, evidence, ...also };
  });
}

function looksAgain(target: Target, powerlessAt: Date): Date | null {
  const now = performance.now();
  if (now < target.lookAgainAt || target.config.fence === 'none') return null;
  const next = new Date(Date.now() + lookMillis);
  if (target.clock.toTarget(next) > powerlessAt) return null;
  target.lookAgainAt = now + lookMillis;
  return next;
}

/** Of another account there is nothing to clean here: what is powerless is so everywhere. */
function rolesOf(target: Target, ref: Ref): readonly string[] {
  return ref.facts === null || ref.facts['account_id'] === target.config.account_id ? target.rolesOf(ref) : [];
}
