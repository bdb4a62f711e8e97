import { step } from '../domain/step.ts';
import { ProviderError } from '../provider.ts';
import { type Claimed, extendClaims } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';

/** A claim lives this long without a heartbeat; so long does a killed worker hold up what it held. */
export const LEASE_SECONDS = 5;
/**
 * So long what is contained waits to be cleaned in the hands of whoever contained it. Longer, since in a storm cleaning falls behind
 * by more than a lease, nothing is open meanwhile, and whoever claims it again must fence it again.
 */
export const CLEANING_LEASE_SECONDS = 15;
const BEAT_MILLIS = 1_500;
/** What is left of a claim just before a beat. */
export const LEFT_MILLIS = LEASE_SECONDS * 1000 - BEAT_MILLIS;

/** Keeps the claims of one batch while a target is slow, and aborts the batch when all of them are lost to other workers. */
export class Heartbeat {
  readonly #lost = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #stopped = false;

  constructor(deps: Pick<RevocationDeps, 'db' | 'log'>, items: readonly Claimed[]) {
    this.#timer = setInterval(() => {
      step('beat.before');
      extendClaims(deps.db, items, LEASE_SECONDS)
        .then((ours) => {
          step('beat.after');
          // A beat that crosses the recording of the outcome finds nothing to extend, rightly.
          if (ours === 0 && !this.#stopped) this.#lost.abort(new ProviderError('retryable', 'The claim was lost.'));
        })
        // Without the store nothing can be recorded, but fencing goes on: it is idempotent.
        .catch((error: unknown) => deps.log({ error }, 'a claim could not be extended'));
    }, BEAT_MILLIS);
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }
}
