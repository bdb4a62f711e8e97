import { type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle } from './handle.ts';
import { mintedBy } from './lost.ts';
import type { Target } from './target.ts';

const width = 8;

/** Nothing of a credential is left when it was fenced, but for the note against a mint on its way: it stays while one can be. */
export async function reap(
  target: Target,
  refs: readonly Ref[],
  signal: AbortSignal,
): Promise<readonly (Outcome & { readonly notBefore?: Date })[]> {
  const outcomes = new Map<number, Outcome & { readonly notBefore?: Date }>();
  await each(refs, width, async (ref, index) => {
    try {
      assertHandle(ref);
      if (ref.facts !== null || target.record === null) outcomes.set(index, { ok: true, evidence: {} });
      else if (Date.now() < mintedBy(ref).getTime())
        outcomes.set(index, { ok: true, evidence: { note: 'stays' }, notBefore: mintedBy(ref) });
      else {
        await target.record.forgetEnded(target.revoking, ref.handle, signal);
        outcomes.set(index, { ok: true, evidence: { note: 'gone' } });
      }
    } catch (error) {
      const failed = error instanceof ProviderError ? error : new ProviderError('retryable', 'cleaning: it failed');
      outcomes.set(index, { ok: false, error: failed });
    }
  });
  return refs.map(
    (_, index) =>
      outcomes.get(index) ?? { ok: false, error: new ProviderError('retryable', 'cleaning: it was not reached') },
  );
}
