import { MayflyError } from '../domain/errors.ts';

/** Lets one thing be done after another, in the order in which they were asked for, and none wait for long. */
export class InTurn {
  readonly #millis: number;
  #last: Promise<unknown> = Promise.resolve();

  /** @param millis So long each waits for its turn, at most. */
  constructor(millis: number) {
    this.#millis = millis;
  }

  /** @throws MayflyError `policies_busy` when its turn did not come: nothing of it was done. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    let given = true;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        given = false;
        reject(new MayflyError('policies_busy', undefined, { retryAfterSeconds: 5 }));
      }, this.#millis);
    });
    const mine = this.#last.then(async () => {
      clearTimeout(timer);
      return given ? { done: await work() } : undefined;
    });
    this.#last = mine.catch(() => {});
    const done = await Promise.race([mine, late]);
    if (done === undefined) throw new MayflyError('policies_busy', undefined, { retryAfterSeconds: 5 });
    return done.done;
  }
}
