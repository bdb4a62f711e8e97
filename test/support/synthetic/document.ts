import { type FenceView, ProviderError, type Ref } from '../../../src/provider.ts';
import type { FenceDocument } from './system.ts';
import type { SyntheticTarget } from './target.ts';

/** How long a mint may be under way. The cut stays behind it, so that a new identity needs no write. Milliseconds. */
const LAG = 60_000;

/**
 * Writes the whole fence anew, with these refs among the denied: read, compose, write. Two that do so at once undo each other;
 * one that was overtaken adds its denials under its own epoch and undoes nothing.
 */
export async function writeDocument(
  target: SyntheticTarget,
  refs: readonly Ref[],
  view: FenceView | undefined,
  skew: number,
): Promise<void> {
  if (view === undefined)
    throw new ProviderError('misconfigured', 'The fence of this target is one document about all: it needs a view.');
  const { system, writers } = target;
  writers.now += 1;
  writers.most = Math.max(writers.most, writers.now);
  try {
    const document = compose([...system.written().values()], refs, view, target.now(), skew);
    await target.holds.pass('document.sent');
    if (!target.epochInName) return system.write('fence', document);
    system.write(String(view.writer), document);
    for (const name of system.written().keys()) if (BigInt(name) < view.writer) system.write(name, null);
  } finally {
    writers.now -= 1;
  }
}

function compose(
  before: readonly FenceDocument[],
  refs: readonly Ref[],
  view: FenceView,
  now: number,
  skew: number,
): FenceDocument {
  const denied = [
    ...before.flatMap((document) => Object.entries(document.denied)),
    ...refs.map((ref) => [ref.handle, ref.deadline.getTime() + skew] as const),
  ];
  return {
    generation: 1 + Math.max(0, ...before.map(({ generation }) => generation)),
    cutBefore: Math.max(now - LAG, ...before.map(({ cutBefore }) => cutBefore)),
    live: view.live.map(({ handle }) => handle),
    denied: Object.fromEntries(denied.filter(([, until]) => until > now)),
  };
}
