import { step } from '../domain/step.ts';
import { noteTimeline, readStoreTimeline } from '../store/store-timeline.ts';
import { targetEvent } from './evidence.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';

/**
 * Notices that the store is on another timeline than it was: it failed over, or was restored, and may have forgotten its last
 * moments. The store itself refuses to issue from the first of those on; here it is told, and all targets become due to be
 * reconciled. Killed before it is written, it is noticed again.
 * @returns those of the targets on which nothing may be issued now.
 */
export async function noticeFailover(deps: ReconcileDeps, targets: readonly string[]): Promise<ReadonlySet<string>> {
  const { known, current, unreconciled } = await readStoreTimeline(deps.db, targets);
  deps.found.unreconciled(unreconciled, targets);
  if (known === current) return unreconciled;
  const change = await deps.db.transaction({}, async (tx) => {
    const noted = await noteTimeline(tx);
    if (noted === undefined) return undefined;
    const payload = { timeline_before: noted.before, timeline: noted.after };
    tx.record(targetEvent('store.failed_over', deps, 'store', payload));
    step('notice-failover.before');
    return noted;
  });
  if (change === undefined) return unreconciled;
  step('notice-failover.after');
  deps.log(
    { ...change, alert: 'failed_over' },
    'the store is on another timeline: it may have forgotten its last moments; nothing is issued until each target is reconciled',
  );
  return unreconciled;
}
