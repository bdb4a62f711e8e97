/**
 * AWS's clock beside ours. A `Date` header tells whole seconds, so what is kept are the bounds that all answers agree on, and the
 * difference taken is the least within them: an honest clock is not corrected by what the header rounds off.
 */
export class AwsClock {
  #least = Number.NEGATIVE_INFINITY;
  #most = Number.POSITIVE_INFINITY;

  /** @param sent @param received By our clock, in milliseconds. */
  heard(date: string | undefined, sent: number, received: number): void {
    const told = Date.parse(date ?? '');
    if (Number.isNaN(told)) return;
    const [least, most] = [told - received, told + 1000 - sent];
    // One of the clocks was set: what was known does not hold any more.
    if (least > this.#most || most < this.#least) [this.#least, this.#most] = [least, most];
    else [this.#least, this.#most] = [Math.max(least, this.#least), Math.min(most, this.#most)];
  }

  /** Milliseconds that AWS is ahead of us, at the least. Negative: behind. Null before the first answer. */
  get offset(): number | null {
    if (this.#most === Number.POSITIVE_INFINITY) return null;
    return this.#least > 0 ? this.#least : Math.min(this.#most, 0);
  }

  /** AWS's time now, in milliseconds. */
  now(): number {
    return Date.now() + (this.offset ?? 0);
  }

  toTarget(time: Date): Date {
    return new Date(time.getTime() + (this.offset ?? 0));
  }

  fromTarget(time: Date): Date {
    return new Date(time.getTime() - (this.offset ?? 0));
  }
}
