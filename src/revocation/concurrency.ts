/** Fifty roles go in one statement nearly as fast as one: 6150/s against 129/s one by one (measured). */
const LARGEST_BATCH = 50;
/** So that an end does not wait for batches that are slow. */
const LANES = 4;
const FEWEST_LANES = 2;
const MOST_LANES = 8;
/** Lanes that only wait for the others: with fewer of them another lane is tried, with more there is one too many. */
const FEW_WAIT = 0.5;
const MANY_WAIT = 1;

/**
 * How much is sent to one target at once: lanes, and items in a batch. While more is due than a batch holds, lanes grow by about one
 * for each round as long as that makes none of them slower, and shrink where it does, as a window of TCP Vegas (Brakmo and
 * Peterson, 1995): more would only wait for the same cores, and so would whoever asks for a credential. They are halved when a target
 * says nothing to some, and batches shrink then too, so that an item at which it hangs is soon alone.
 */
export class Concurrency {
  /** As many as it answers to. */
  #borne = LANES;
  #batch = LARGEST_BATCH;
  /** As many as help, while more is due than one batch holds. */
  #window: number | undefined;
  /** The quickest full batch of that while, in milliseconds. */
  #quickest = Number.POSITIVE_INFINITY;

  /** Batches that may be under way at once. */
  get lanes(): number {
    return Math.floor(Math.min(this.#borne, this.#window ?? LANES));
  }

  /** Items that the next batch may hold. */
  get batch(): number {
    return this.#batch;
  }

  /** Whether more is due than what is in hand. */
  behind(behind: boolean): void {
    if (!behind) this.#quickest = Number.POSITIVE_INFINITY;
    this.#window = behind ? (this.#window ?? FEWEST_LANES) : undefined;
  }

  /**
   * @param items How many the batch held.
   * @param silent To how many of them the target said nothing.
   * @param millis How long it took to end all of them; undefined when not all were, or they were cleaned.
   */
  told(items: number, silent: number, millis?: number): void {
    const full = items >= LARGEST_BATCH;
    if (silent > 0) this.#borne = Math.max(1, this.#borne / 2);
    else this.#borne = Math.min(full ? MOST_LANES : Math.max(LANES, this.#borne), this.#borne + 1 / this.#borne);
    if (full && silent === 0 && millis !== undefined) this.#adapt(millis);
    if (silent === items) this.#batch = Math.max(1, Math.floor(this.#batch / 4));
    else this.#batch = Math.min(LARGEST_BATCH, this.#batch * 4);
  }

  #adapt(millis: number): void {
    if (this.#window === undefined) return;
    this.#quickest = Math.min(this.#quickest, millis);
    const waiting = this.#window * (1 - this.#quickest / millis);
    if (waiting < FEW_WAIT) this.#window = Math.min(MOST_LANES, this.#window + 1 / this.#window);
    else if (waiting > MANY_WAIT) this.#window = Math.max(FEWEST_LANES, this.#window - 1 / this.#window);
  }
}
