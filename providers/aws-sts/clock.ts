/** A session is powerless at its deadline by AWS's clock; so much later nobody's clock says otherwise. Milliseconds. */
export const skewMillis = 5_000;
/** What AWS last said of its time counts for so long; then it is asked again before anything is called over. Milliseconds. */
const knownMillis = 60_000;
/** By how much of what passes our monotonic clock may run fast or slow. */
const drift = 0.001;
/** An answer that is further from those before it counts once another one agrees with it: a proxy may have given it. */
const leapMillis = 5_000;

/**
 * AWS's clock, by what its answers say and by our monotonic clock since: a wall clock may be set at any time, and a machine that slept
 * only counts too little. A `Date` header tells whole seconds, so what is kept are the bounds that all answers agree on.
 */
export class AwsClock {
  /** AWS's time less `performance.now()`, at the least and at the most. */
  #least = Number.NEGATIVE_INFINITY;
  #most = Number.POSITIVE_INFINITY;
  #heardAt = Number.NEGATIVE_INFINITY;
  #doubted = false;

  /** @param sent @param received By `performance.now()`. */
  heard(date: string | null | undefined, sent: number, received: number): void {
    const told = Date.parse(date ?? '');
    if (Number.isNaN(told)) return;
    const [least, most] = [told - received, told + 1000 - sent];
    const [lowest, highest] = this.#bounds(received);
    const leap = Math.max(least - highest, lowest - most);
    this.#doubted = leap > leapMillis;
    // AWS's clock was set, or ours stood still while the machine slept: what was known does not hold any more.
    if (leap > 0) [this.#least, this.#most] = [least, most];
    else [this.#least, this.#most] = [Math.max(least, lowest), Math.min(most, highest)];
    this.#heardAt = received;
  }

  /** Whether AWS said lately what time it is. */
  get isKnown(): boolean {
    return !this.#doubted && performance.now() - this.#heardAt < knownMillis;
  }

  /** Milliseconds that AWS is ahead of our wall clock, at the least. Negative: behind. Null before the first answer. */
  get offset(): number | null {
    return this.#heardAt === Number.NEGATIVE_INFINITY ? null : this.#correction(Date.now());
  }

  /** AWS's time now, in milliseconds, as near as is known: our wall clock is taken where AWS's answers agree with it. */
  now(): number {
    const wall = Date.now();
    return wall + this.#correction(wall);
  }

  /** It is so late by AWS's clock at the least: what is over by then is over. Null where it is not known. */
  atLeast(): number | null {
    const mono = performance.now();
    return this.isKnown ? mono + this.#bounds(mono)[0] : null;
  }

  /** It is so late at the most. Null where it is not known. */
  atMost(): number | null {
    const mono = performance.now();
    return this.isKnown ? mono + this.#bounds(mono)[1] : null;
  }

  toTarget(time: Date): Date {
    return new Date(time.getTime() + this.#correction(Date.now()));
  }

  fromTarget(time: Date): Date {
    return new Date(time.getTime() - this.#correction(Date.now()));
  }

  #correction(wall: number): number {
    const mono = performance.now();
    const [least, most] = this.#bounds(mono);
    const offset = wall - mono;
    return offset < least ? least - offset : Math.min(0, most - offset);
  }

  #bounds(mono: number): readonly [least: number, most: number] {
    if (this.#heardAt === Number.NEGATIVE_INFINITY) return [this.#least, this.#most];
    const unsure = Math.max(0, mono - this.#heardAt) * drift;
    return [this.#least - unsure, this.#most + unsure];
  }
}
