/** Behind a batch that takes longer than this a new one starts: one that waits for a lock holds nobody up. */
const PATIENCE_MILLIS = 25;
const MOST_BATCHES = 8;

interface Waiting<I, O> {
  readonly item: I;
  readonly resolve: (output: O) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Sends what is asked for at the same moment as one statement: in the same turn of the event loop, or while a batch is under way.
 * On loopback a round trip costs about a millisecond of both processes' CPU, more than most statements do.
 */
export class Coalescer<I, O> {
  readonly #run: (items: readonly I[]) => Promise<readonly O[]>;
  readonly #most: number;
  #waiting: Waiting<I, O>[] = [];
  #underWay = 0;
  #soon: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  /** @param run Answers one output per item, in their order. */
  constructor(run: (items: readonly I[]) => Promise<readonly O[]>, most = 32) {
    this.#run = run;
    this.#most = most;
  }

  call(item: I): Promise<O> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      if (this.#underWay === 0) this.#soon ??= setImmediate(() => this.#start());
      else this.#timer ??= setTimeout(() => this.#start(), PATIENCE_MILLIS);
    });
  }

  #start(): void {
    clearImmediate(this.#soon);
    this.#soon = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#underWay >= MOST_BATCHES) return;
    const batch = this.#waiting.splice(0, this.#most);
    if (batch.length === 0) return;
    this.#underWay += 1;
    this.#run(batch.map(({ item }) => item))
      .then((outputs) => {
        batch.forEach(({ resolve, reject }, index) => {
          const output = outputs[index];
          if (output === undefined) reject(new Error('The store answered fewer rows than it was asked for.'));
          else resolve(output);
        });
      })
      .catch((error: unknown) => {
        for (const { reject } of batch) reject(error);
      })
      .finally(() => {
        this.#underWay -= 1;
        if (this.#waiting.length > 0) this.#start();
      });
  }
}
