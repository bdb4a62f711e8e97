import type { AwsClock } from './clock.ts';

/**
 * An epoch that nobody wrote to for so long is never written to again: another broker, or a deletion of it that was held up, may take it
 * away. Others wait for twice as long whether it changes before they do. Shorter, and at one end a minute the role has no room for the
 * copies: of some 4,500 ends each in the model 752 live grants were denied with 30 s, 65 with 120 s, none with 300 s.
 */
export const idleMillis = 300_000;
/** What was sent in time counts when it is written by then. The rest of the wait of others is for what IAM shows late. */
const writtenMillis = 450_000;
/** For what IAM shows late. */
const mostTexts = 20;

interface Moment {
  /** By `performance.now()`, which may stand still while a machine sleeps; and by AWS's clock. */
  readonly here: number;
  readonly there: number;
}

/** A name of the fence under which this process alone writes, one document after another. */
export class Epoch {
  readonly number: bigint;
  readonly #clock: AwsClock;
  #texts: readonly string[] = [];
  #began: Moment | undefined;

  constructor(number: bigint, clock: AwsClock) {
    this.number = number;
    this.#clock = clock;
  }

  /** What was written, the last ones of it. */
  get texts(): readonly string[] {
    return this.#texts;
  }

  /** Whether it may be written to no more. */
  get isIdle(): boolean {
    return this.#idleFor() > idleMillis;
  }

  /** Whether what was written just now may have come too late: somebody may be taking it away. */
  get isTooLate(): boolean {
    return this.#idleFor() > writtenMillis;
  }

  /** Call it before a document is sent, and what it answers once that is written. */
  begin(): () => void {
    const moment = { here: performance.now(), there: this.#clock.atLeast() ?? Number.NEGATIVE_INFINITY };
    return () => {
      this.#began = moment;
    };
  }

  wrote(text: string): void {
    this.#texts = [...this.#texts.slice(-mostTexts), text];
  }

  /** Since the last document was sent. */
  #idleFor(): number {
    if (this.#began === undefined) return 0;
    const { here, there } = this.#began;
    return Math.max(performance.now() - here, (this.#clock.atMost() ?? Number.POSITIVE_INFINITY) - there);
  }
}
