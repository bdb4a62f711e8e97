/** Fifty roles go in one statement nearly as fast as one: 6150/s against 129/s one by one (measured). */
const LARGEST_BATCH = 50;
/** One more than one, so that an end does not wait for a batch that is slow. */
const FEWEST_LANES = 2;
const MOST_LANES = 8;
/** Lanes that only wait for the others: with fewer of them another lane is tried, with more there is one too many. */
const FEW_WAIT = 0.5;
const MANY_WAIT = 1;

/**
 * How much is sent to one target at once: lanes, and items in a batch. Lanes grow by about one for each round of full batches as
 * long as that makes none of them slower, and shrink where it does, as a window of TCP Vegas (Brakmo and Peterson, 1995): more
 * would only wait for the same cores, and so would whoever asks for a credential. They are halved when a target says nothing to some,
 * and batches shrink then too, so that an item at which it hangs is soon alone.
 */
export class Concurrency {
  #lanes = FEWEST_LANES;
  #batch = LARGEST_BATCH;
  /** The quickest full batch since there was less to do than one holds. */
  #quickest = Number.POSITIVE_INFINITY;

  /** Batches that may be under way at once. */
  get lanes(): number {
    return Math.floor(this.#lanes);
  }

  /** Items that the next batch may hold. */
  get batch(): number {
    return this.#batch;
  }

  /** All that was due is in hand: what comes next meets another load. */
  caughtUp(): void {
    this.#quickest = Number.POSITIVE_INFINITY;
  }

  /**
   * @param items How many the batch held.
   * @param silent To how many of them the target said nothing.
   * @param millis How long it took to end them. Without it, the lanes do not grow beyond the fewest.
   */
  told(items: number, silent: number, millis?: number): void {
    if (silent > 0) this.#lanes = Math.max(1, this.#lanes / 2);
    else if (this.#lanes < FEWEST_LANES) this.#lanes = Math.min(FEWEST_LANES, this.#lanes + 1 / this.#lanes);
    else if (millis !== undefined && items >= LARGEST_BATCH) this.#adapt(millis);
    if (silent === items) this.#batch = Math.max(1, Math.floor(this.#batch / 4));
    else this.#batch = Math.min(LARGEST_BATCH, this.#batch * 4);
  }

  #adapt(millis: number): void {
    this.#quickest = Math.min(this.#quickest, millis);
    const waiting = this.#lanes * (1 - this.#quickest / millis);
    if (waiting < FEW_WAIT) this.#lanes = Math.min(MOST_LANES, this.#lanes + 1 / this.#lanes);
    else if (waiting > MANY_WAIT) this.#lanes = Math.max(FEWEST_LANES, this.#lanes - 1 / this.#lanes);
  }
}
