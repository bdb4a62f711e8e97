import { step } from '../domain/step.ts';
import type { Transaction } from '../store/database.ts';
import { noteSetBack, noteTimeline, readStoreTimeline, type TimelineChange } from '../store/store-timeline.ts';
import { targetEvent } from './evidence.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';

type NoticingDeps = Pick<ReconcileDeps, 'db' | 'policyDigest' | 'worker' | 'log'>;

/**
 * Notices that the store is on another timeline than it was: it failed over, or was restored, and may have forgotten its last
 * moments. The store itself refuses to issue from the first of those on; here it is told, and all targets become due to be
 * reconciled. Killed before it is written, it is noticed again.
 * @returns those of the targets on which nothing may be issued now.
 */
export async function noticeFailover(deps: ReconcileDeps, targets: readonly string[]): Promise<ReadonlySet<string>> {
  const { known, current, unreconciled } = await readStoreTimeline(deps.db, targets);
  deps.found.unreconciled(unreconciled, targets);
  if (known !== current) await notice(deps, 'it is on another timeline', noteTimeline, async () => {});
  return unreconciled;
}

/**
 * The same, where no timeline tells: a target shows a beat, or this process wrote one, that the store knows nothing of.
 * @param raise Goes beyond that beat, in the same transaction: afterwards nothing would tell any more.
 */
export async function noticeSetBack<T>(
  deps: NoticingDeps,
  tenure: string,
  target: string,
  beat: number,
  raise: (tx: Transaction) => Promise<T>,
): Promise<T> {
  const says = `it was set back: it does not know the last beats of ${target}`;
  return await notice(deps, says, (tx) => noteSetBack(tx, tenure, target, beat), raise);
}

async function notice<T>(
  deps: NoticingDeps,
  says: string,
  note: (tx: Transaction) => Promise<TimelineChange | undefined>,
  then: (tx: Transaction) => Promise<T>,
): Promise<T> {
  const { change, answer } = await deps.db.transaction({}, async (tx) => {
    const noted = await note(tx);
    const answered = await then(tx);
    if (noted !== undefined) {
      const payload = { timeline_before: noted.before, timeline: noted.after, says };
      tx.record(targetEvent('store.failed_over', deps, 'store', payload));
      step('notice-failover.before');
    }
    return { change: noted, answer: answered };
  });
  if (change !== undefined) {
    step('notice-failover.after');
    deps.log(
      { ...change, says, alert: 'failed_over' },
      'the store may have forgotten its last moments; nothing is issued until each target is reconciled',
    );
  }
  return answer;
}
