import { type FenceView, type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { classify } from './errors.ts';
import { livingOn } from './fence.ts';
import type { Target } from './target.ts';

type Reaped = Outcome & { readonly notBefore?: Date };

/** An entry leaves the fence when its grant is powerless by itself; before, that would let it back in. */
export async function reap(
  target: Target,
  refs: readonly Ref[],
  view: FenceView | undefined,
  signal: AbortSignal,
): Promise<readonly Reaped[]> {
  if (view === undefined)
    throw new ProviderError('misconfigured', 'The fence of this target is one document about all: it needs a view.');
  const over = refs.filter((ref) => target.isPowerless(ref));
  const failures = new Map<Ref, ProviderError>();
  if (target.config.fence !== 'none') {
    const roles = new Set(refs.flatMap((ref) => rolesOf(target, ref)));
    await Promise.all(
      [...roles].map(async (role) => {
        try {
          await target.fenceOf(role).prune(livingOn(role, view), view, signal);
        } catch (error) {
          for (const ref of over)
            if (rolesOf(target, ref).includes(role)) failures.set(ref, classify(error, 'cleaning'));
        }
      }),
    );
  }
  return refs.map((ref): Reaped => {
    const powerlessAt = new Date(target.powerlessAt(ref));
    const error = failures.get(ref);
    if (error !== undefined) return { handle: ref.handle, ok: false, error };
    const evidence = { powerless_at: powerlessAt.toISOString() };
    if (!over.includes(ref))
      return { handle: ref.handle, ok: true, evidence, notBefore: target.clock.fromTarget(powerlessAt) };
    target.renewedUntil.delete(ref.handle);
    if (ref.facts === null) target.reaped.add(ref.handle);
    return { handle: ref.handle, ok: true, evidence };
  });
}

/** Of another account there is nothing to clean here: what is powerless is so everywhere. */
function rolesOf(target: Target, ref: Ref): readonly string[] {
  return ref.facts === null || ref.facts['account_id'] === target.config.account_id ? target.rolesOf(ref) : [];
}
