/** For so long something is not counted again: each ask would pay for it. */
const KEPT_MILLIS = 1_000;
/** Of how many it is remembered. */
const MOST_KNOWN = 10_000;

interface Counted {
  readonly at: number;
  /** As counted, and what this replica has let through since. */
  count: number;
}

/**
 * How many there are of something, each key by itself. Counted at most once a second, and anew before one is refused: so a refusal is
 * right, and replicas together may let through as many more as they are asked for in that second.
 */
export class CountedRoom {
  readonly #read: (key: string, most: number) => Promise<number>;
  readonly #most: number;
  readonly #counted = new Map<string, Counted>();
  readonly #counting = new Map<string, Promise<Counted>>();

  /** @param read Counts in the store, and may stop at the most. @param most For each key. */
  constructor(read: (key: string, most: number) => Promise<number>, most: number) {
    this.#read = read;
    this.#most = most;
  }

  /** Whether there is room for one more; then it counts as taken. */
  async hasRoom(key: string): Promise<boolean> {
    const known = this.#counted.get(key);
    const fresh = known !== undefined && performance.now() - known.at < KEPT_MILLIS && known.count < this.#most;
    const counted = fresh ? known : await this.#count(key);
    if (counted.count >= this.#most) return false;
    counted.count += 1;
    return true;
  }

  /** One count for all who wait for it. */
  async #count(key: string): Promise<Counted> {
    const counting =
      this.#counting.get(key) ??
      this.#readCount(key).finally(() => {
        this.#counting.delete(key);
      });
    this.#counting.set(key, counting);
    return await counting;
  }

  async #readCount(key: string): Promise<Counted> {
    const at = performance.now();
    const counted = { at, count: await this.#read(key, this.#most) };
    // The one that was counted last is the last to be forgotten.
    this.#counted.delete(key);
    this.#counted.set(key, counted);
    const [oldest] = this.#counted.keys();
    if (this.#counted.size > MOST_KNOWN && oldest !== undefined) this.#counted.delete(oldest);
    return counted;
  }
}
