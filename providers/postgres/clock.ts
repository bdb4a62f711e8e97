interface Sample {
  readonly offset: number;
  /** The truth is within this of `offset`: half the round trip. */
  readonly error: number;
  readonly at: number;
}

/**
 * The target's clock as seen from here, in milliseconds. Deadlines are decided by the broker's clock and enforced by
 * the target's: they are translated so that they never come later than decided.
 */
export class TargetClock {
  readonly #now: () => number;
  #sample: Sample | undefined;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** @param targetTime What the target said between `sent` and `received`. Unix milliseconds, all three. */
  learn(sent: number, received: number, targetTime: number): void {
    const sample = {
      offset: targetTime - (sent + received) / 2,
      error: Math.max(received - sent, 1) / 2,
      at: received,
    };
    const old = this.#sample;
    // A slow answer says less than a quick one of a minute ago.
    if (old === undefined || sample.error <= 2 * old.error || received - old.at > 60_000) {
      this.#sample = sample;
    }
  }

  /** How far the target is ahead, and within what: null before it was asked. */
  get skew(): { readonly offset: number; readonly error: number } | null {
    return this.#sample ?? null;
  }

  /** Milliseconds since it was learnt. */
  get age(): number {
    return this.#sample === undefined ? Infinity : this.#now() - this.#sample.at;
  }

  toTarget(time: Date): Date {
    const { offset, error } = this.#sample ?? { offset: 0, error: 0 };
    return new Date(Math.floor(time.getTime() + offset - error));
  }

  fromTarget(time: Date): Date {
    return new Date(Math.ceil(time.getTime() - (this.#sample?.offset ?? 0)));
  }
}
