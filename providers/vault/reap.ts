import { type Outcome, ProviderError, type Ref } from '../../src/provider.ts';
import { each } from './each.ts';
import { assertHandle } from './handle.ts';
import { findTokens, isLost, mintedBy } from './lost.ts';
import type { Target } from './target.ts';
import { revokeAccessor } from './tokens.ts';

const width = 8;

type Reaped = Outcome & { readonly notBefore?: Date };

/** Nothing of a credential is left when it was fenced, but for its note: that stays while a mint of it can be on its way. */
export async function reap(target: Target, refs: readonly Ref[], signal: AbortSignal): Promise<readonly Reaped[]> {
  const outcomes = new Map<number, Reaped>();
  await each(refs, width, async (ref, index) => {
    try {
      outcomes.set(index, await reapOne(target, ref, signal));
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

async function reapOne(target: Target, ref: Ref, signal: AbortSignal): Promise<Reaped> {
  const { notes, place, revoking } = target;
  assertHandle(ref, place);
  if (notes === null) return { ok: true, evidence: {} };
  if (isLost(ref)) {
    const note = await notes.find(revoking, ref.handle, signal);
    if (note?.ended === false) throw new ProviderError('retryable', 'cleaning: it is not ended yet');
    const last = Math.max(mintedBy(target, ref).getTime(), note?.until === undefined ? 0 : Date.parse(note.until));
    if (note !== null && Date.now() < last) return { ok: true, evidence: { note: 'stays' }, notBefore: new Date(last) };
    // One that was on its way when its grant was ended: it was nobody's.
    if (note?.state === 'begun')
      for (const { accessor } of (await findTokens(target, [ref], signal)).get(ref.handle) ?? [])
        await revokeAccessor(target, accessor, signal);
  }
  await notes.forget(revoking, ref.handle, signal);
  target.remember(ref.handle);
  return { ok: true, evidence: { note: 'gone' } };
}
