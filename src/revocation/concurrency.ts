/** Fifty roles go in one statement nearly as fast as one: 6150/s against 129/s one by one (measured). */
const LARGEST_BATCH = 50;
/** One more than one, so that an end does not wait for a batch that is slow. */
const FIRST_LANES = 4;
const MOST_LANES = 8;

/**
 * How much is sent to one target at once: lanes, and items in a batch. Grows by about one lane for each round of full batches that
 * it bears, and is halved when it says nothing to some. Batches shrink then too, so that an item at which it hangs is soon alone.
 */
export class Concurrency {
  #lanes = FIRST_LANES;
  #batch = LARGEST_BATCH;

  /** Batches that may be under way at once. */
  get lanes(): number {
    return Math.floor(this.#lanes);
  }

  /** Items that the next batch may hold. */
  get batch(): number {
    return this.#batch;
  }

  /**
   * @param items How many the batch held.
   * @param silent To how many of them the target said nothing.
   */
  told(items: number, silent: number): void {
    if (silent > 0) this.#lanes = Math.max(1, this.#lanes / 2);
    else if (items >= this.#batch) this.#lanes = Math.min(MOST_LANES, this.#lanes + 1 / this.#lanes);
    if (silent === items) this.#batch = Math.max(1, Math.floor(this.#batch / 4));
    else this.#batch = Math.min(LARGEST_BATCH, this.#batch * 4);
  }
}
