import type { Express } from 'express';

/**
 * The work of one app that a shutdown must know of: long polls, which it ends, and requests whose handlers still run, which it
 * lets finish even when their callers are gone (a credential made for nobody is taken back there).
 */
export class InHand {
  readonly #work = new Set<Promise<unknown>>();
  readonly #polls = new Set<() => void>();
  #ended = false;

  hold(work: Promise<unknown>): void {
    this.#work.add(work);
    void work.catch(() => {}).finally(() => this.#work.delete(work));
  }

  /** Calls `end` when the shutdown begins (at once if it has). Answers how to take that back. */
  poll(end: () => void): () => void {
    this.#polls.add(end);
    if (this.#ended) end();
    return () => this.#polls.delete(end);
  }

  endPolls(): void {
    this.#ended = true;
    for (const end of this.#polls) end();
  }

  /** Resolves when nothing is held. */
  async idle(): Promise<void> {
    while (this.#work.size > 0) await Promise.allSettled(this.#work);
  }
}

const byApp = new WeakMap<Express, InHand>();

/** The work in hand of an app, for the server that runs it. */
export function inHandOf(app: Express): InHand {
  const inHand = byApp.get(app) ?? new InHand();
  byApp.set(app, inHand);
  return inHand;
}
