import { setTimeout as sleep } from 'node:timers/promises';
import { type FenceOutcome, type FenceView, ProviderError, type Session } from '../provider.ts';
import type { Claimed } from '../store/claims.ts';
import { leaveWriter, takeWriter, type WriterView } from '../store/fence-writers.ts';
import type { RevocationDeps } from './deps.ts';
import { endCutOff } from './end-cut-off.ts';
import { toRef } from './looking.ts';

/** Between looks whether the writer before is done: a write of the whole document takes some hundred milliseconds. */
const LOOK_MILLIS = 50;
/** As long as a writer may be at work. */
const PATIENCE_MILLIS = 15_000;

/**
 * Does it as the one writer of the target's fence document, with a view of what must live on; at once, and without a view, where
 * the fence is no such document. What it had to cut besides ends.
 * @throws ProviderError `retryable` when another writer does not end.
 */
export async function asWriter(
  deps: RevocationDeps,
  session: Session,
  target: string,
  items: readonly Claimed[],
  signal: AbortSignal,
  work: (view: FenceView | undefined) => Promise<readonly FenceOutcome[]>,
): Promise<readonly FenceOutcome[]> {
  if (session.oneDocument !== true) return await work(undefined);
  const { view, live } = await waitForTurn(deps, target, items, signal);
  try {
    const outcomes = await work(view);
    // Before the next writer reads who lives.
    await endCutOff(deps, target, live, outcomes);
    return outcomes;
  } finally {
    await leaveWriter(deps.db, deps.worker, items).catch((error: unknown) =>
      deps.log({ target, error }, 'a writer of a fence can not be let go; it ends with its claim'),
    );
  }
}

async function waitForTurn(
  deps: Pick<RevocationDeps, 'db' | 'worker'>,
  target: string,
  items: readonly Claimed[],
  signal: AbortSignal,
): Promise<{ readonly view: FenceView; readonly live: WriterView['live'] }> {
  const until = performance.now() + PATIENCE_MILLIS;
  while (performance.now() < until) {
    signal.throwIfAborted();
    // Before it is read: a process may be held up anywhere.
    const asked = new Date();
    const taken = await takeWriter(deps.db, target, deps.worker, items);
    if (taken !== undefined) {
      const { live, number: writer } = taken;
      return { view: { live: live.map(toRef), writer, at: asked }, live };
    }
    await sleep(LOOK_MILLIS);
  }
  throw new ProviderError('retryable', 'Another writer of the fence does not end.');
}
