import type { RevocationId } from '../domain/ids.ts';
import { type ErrorClass, retryDelaySeconds } from '../domain/revocation.ts';
import { step } from '../domain/step.ts';
import { ProviderError } from '../provider.ts';
import { type Claimed, markFailed } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';
import { tellingHang } from './hanging.ts';

export interface FailedItem {
  readonly errorClass: ErrorClass;
  /** For operators. Providers keep secrets out of it. */
  readonly says: string;
  /** The target did not serve us at all: nothing was learnt about this item. */
  readonly silent: boolean;
  /** The target was looked at, and shows it alive. */
  readonly alive?: true;
  /** It ends by itself so soon that nothing else is tried: seconds until then. No failure. */
  readonly endsIn?: number;
}

/** Items of a batch that did not go through, by id. */
export type Failures = Map<RevocationId, FailedItem>;

const CLASSES: readonly ErrorClass[] = ['retryable', 'denied', 'misconfigured', 'gone'];
const MOST_SAID = 1_000;

export function failureOf(error: unknown): FailedItem {
  if (error instanceof ProviderError) {
    const errorClass = CLASSES.find((known) => known === error.errorClass) ?? 'retryable';
    // NUL and halves of surrogate pairs, which a target may quote, would make the store refuse the whole batch.
    return {
      errorClass,
      says: error.message.slice(0, MOST_SAID).replace(/\0|\p{Surrogate}/gu, '\ufffd'),
      silent: error.wholeTarget,
    };
  }
  // Whatever else was thrown may say anything: only its name is kept.
  return { errorClass: 'retryable', says: error instanceof Error ? error.name : 'failed', silent: false };
}

/** What was thrown where every item was to be reported by itself: nothing could be tried. */
export function failureOfAll(error: unknown): FailedItem {
  const late = error instanceof DOMException && error.name === 'TimeoutError';
  return { ...failureOf(error), silent: late || error instanceof ProviderError };
}

type GivenBack = Parameters<typeof markFailed>[1][number] & { readonly item: Claimed };

/** Whether nothing can end an item but its own expiry, which is still to come. */
export function awaitsExpiry(item: Claimed, now: Date): boolean {
  return !item.contained && item.dueAt > now;
}

/** To how many of the items the target said nothing. */
export function countSilent(items: readonly Claimed[], failures: Failures): number {
  return items.filter(({ id }) => failures.get(id)?.silent === true).length;
}

/**
 * Gives back what failed, with its next try and the class of its error. The evidence tells of the first attempts and then of every
 * doubling: a target that is gone for days must not fill the store.
 */
export async function recordFailures(
  deps: RevocationDeps,
  target: string,
  items: readonly Claimed[],
  failures: Failures,
  clock: () => Date,
): Promise<void> {
  const now = clock();
  const failed = items.flatMap((item): GivenBack[] => {
    const failure = failures.get(item.id);
    if (failure === undefined) return [];
    if (failure.alive === true && awaitsExpiry(item, now)) return [waiting(deps, target, item, now)];
    if (failure.endsIn !== undefined)
      return [{ item, event: null, now, errorClass: null, delaySeconds: failure.endsIn }];
    const { errorClass, says } = failure;
    deps.log(
      { target, grant_id: item.grantId, error_class: errorClass, says, attempts: item.attempts },
      'a revocation is not done yet',
    );
    const payload = {
      outcome: 'failed',
      error_class: errorClass,
      says,
      attempts: item.attempts,
      contained: item.contained,
    };
    const event = isTold(item.attempts) ? engineEvent('revocation.attempted', deps, target, item, payload) : null;
    return [{ item, event, now, errorClass, delaySeconds: retryDelaySeconds(item.attempts, deps.random()) }];
  });
  if (failed.length === 0) return;
  step('fail.before');
  const ours = await tellingHang(deps, target, () => markFailed(deps.db, failed));
  step('fail.after');
  for (const { item, errorClass } of failed)
    if (errorClass !== null && ours.has(item.id)) deps.observer.failed(target, errorClass);
  deps.db.announce(failed.map(({ item }) => item.taskId));
}

function isTold(attempts: number): boolean {
  return attempts <= 4 || Number.isInteger(Math.log2(attempts));
}

/** It is tried again when it has expired. */
function waiting(deps: RevocationDeps, target: string, item: Claimed, now: Date): GivenBack {
  const says = `waits for its native expiry at ${item.deadline.toISOString()}`;
  const payload = { outcome: 'waits', says, attempts: item.attempts };
  const event = isTold(item.attempts) ? engineEvent('revocation.attempted', deps, target, item, payload) : null;
  return { item, event, now, errorClass: null, delaySeconds: 0 };
}
