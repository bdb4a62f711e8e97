import type { RevocationId } from '../domain/ids.ts';
import { type ErrorClass, retryDelaySeconds } from '../domain/revocation.ts';
import { type Claimed, markFailed } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';

/** Gives back what failed, with its next try and the class of its error. */
export async function recordFailures(
  deps: RevocationDeps,
  target: string,
  items: readonly Claimed[],
  failures: ReadonlyMap<RevocationId, ErrorClass>,
  clock: () => Date,
): Promise<void> {
  const now = clock();
  const failed = items.flatMap((item) => {
    const errorClass = failures.get(item.id);
    if (errorClass === undefined) return [];
    const payload = { outcome: 'failed', error_class: errorClass, attempts: item.attempts };
    const event = engineEvent('revocation.attempted', deps, target, item, payload);
    return [{ item, event, now, errorClass, delaySeconds: retryDelaySeconds(item.attempts, deps.random()) }];
  });
  if (failed.length === 0) return;
  const ours = await markFailed(deps.db, failed);
  for (const { item, errorClass } of failed) if (ours.has(item.id)) deps.observer.failed(target, errorClass);
  deps.db.announce(failed.map(({ item }) => item.taskId));
}
