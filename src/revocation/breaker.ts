export type BreakerState = 'closed' | 'open' | 'probing';

/** Batches in a row that a target says nothing to before it is left alone. */
const TOLERATED = 3;
/** How long it is left alone at first, and at most: so much later than its return may the next end be. */
const FIRST_PAUSE_MILLIS = 500;
const LONGEST_PAUSE_MILLIS = 10_000;
/** What stayed closed for so long has recovered: the next pause is a first one again. */
const RECOVERED_MILLIS = 60_000;

/**
 * Whether this replica may try a target now. After a few batches that it said nothing to at all (unreachable, no answer in time,
 * login refused), it is left alone for a while, then one probe goes there. Meanwhile nothing is claimed, so that no obligation
 * counts an attempt.
 */
export class Breaker {
  readonly #now: () => number;
  readonly #random: () => number;
  #state: BreakerState = 'closed';
  #silent = 0;
  #pause = FIRST_PAUSE_MILLIS;
  #until = 0;
  #closedAt = Number.NEGATIVE_INFINITY;

  /**
   * @param now Milliseconds of a clock that never goes back.
   * @param random Uniform in [0, 1).
   */
  constructor(now: () => number, random: () => number) {
    this.#now = now;
    this.#random = random;
  }

  get state(): BreakerState {
    return this.#state;
  }

  /**
   * Asks to try something now. After `probe`, exactly one of {@link answered}, {@link silent} and {@link abstained} must follow.
   * @returns `wait` with the milliseconds until the next probe may be sent.
   */
  ask(): { readonly may: 'try' | 'probe' } | { readonly may: 'wait'; readonly millis: number } {
    if (this.#state === 'closed') return { may: 'try' };
    const left = this.#until - this.#now();
    if (this.#state === 'probing' || left > 0) return { may: 'wait', millis: Math.max(left, FIRST_PAUSE_MILLIS) };
    this.#state = 'probing';
    return { may: 'probe' };
  }

  /** The target said something, be it a refusal of what was asked. */
  answered(): void {
    this.#silent = 0;
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#closedAt = this.#now();
  }

  /** It said nothing to any item of a batch. */
  silent(): void {
    this.#silent += 1;
    // What was under way when it opened makes the pause no longer.
    if (this.#state === 'open' || (this.#state === 'closed' && this.#silent < TOLERATED)) return;
    if (this.#state === 'closed' && this.#now() - this.#closedAt > RECOVERED_MILLIS) this.#pause = FIRST_PAUSE_MILLIS;
    this.#state = 'open';
    this.#until = this.#now() + this.#pause * (0.5 + this.#random() / 2);
    this.#pause = Math.min(LONGEST_PAUSE_MILLIS, this.#pause * 2);
  }

  /** There was nothing to probe with. */
  abstained(): void {
    if (this.#state === 'probing') this.#state = 'open';
  }
}
