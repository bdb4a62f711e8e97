import { type Claim, claimClock, type Claimed, markClean, postpone } from '../store/claims.ts';
import { askEach } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { openSession } from './end-batch.ts';
import { engineEvent } from './evidence.ts';
import { type Failures, failureOf, recordFailures } from './failures.ts';
import { asWriter } from './fence-writer.ts';
import { Heartbeat } from './heartbeat.ts';
import { look, sift, toRef } from './looking.ts';

const BATCH = 100;

/**
 * Cleans what is contained on one target: reap → verify → clean. Behind the fencing, never in its way: what comes together while
 * a batch is at work is cleaned together after it.
 */
export class Cleaner {
  readonly #deps: RevocationDeps;
  readonly #target: string;
  #waiting: Claimed[] = [];
  #running: Promise<void> | undefined;
  #clock: () => Date = () => new Date();

  constructor(deps: RevocationDeps, target: string) {
    this.#deps = deps;
    this.#target = target;
  }

  add(claim: Claim, items: readonly Claimed[]): void {
    if (items.length === 0) return;
    this.#clock = () => claimClock(claim);
    this.#waiting.push(...items);
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Lets what was added be cleaned. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async #run(): Promise<void> {
    try {
      while (this.#waiting.length > 0) await this.#clean(this.#waiting.splice(0, BATCH));
    } catch (error) {
      // The store does not answer: what is contained stays so, and is claimed again for cleaning.
      this.#deps.log({ target: this.#target, error }, 'what was cleaned can not be recorded now');
      this.#waiting = [];
    }
  }

  async #clean(items: readonly Claimed[]): Promise<void> {
    const heartbeat = new Heartbeat(this.#deps, items);
    const failures: Failures = new Map();
    try {
      const session = await openSession(this.#deps, this.#target, items);
      const { signal } = heartbeat;
      const outcomes = await asWriter(this.#deps, session, this.#target, items, signal, (view) =>
        askEach(items.length, signal, (limited) => session.reap(items.map(toRef), limited, view)),
      );
      const reaped = sift(items, outcomes, failures);
      const waiting = items.flatMap((item, index) => {
        const seconds = secondsUntil(outcomes[index]?.notBefore);
        return reaped.has(item) && seconds > 0 ? [{ item, seconds }] : [];
      });
      for (const { item } of waiting) reaped.delete(item);
      const ready = [...reaped.keys()];
      const seen = await look(session, ready, failures, signal, 'clean');
      const now = this.#clock();
      const done = ready.flatMap((item) => {
        const evidence = seen.get(item.id);
        if (evidence === undefined) return [];
        const event = engineEvent('revocation.clean', this.#deps, this.#target, item, { evidence });
        return [{ item, evidence, now, event }];
      });
      heartbeat.stop();
      if (done.length > 0) await markClean(this.#deps.db, done);
      if (waiting.length > 0) await postpone(this.#deps.db, waiting);
      this.#deps.db.announce(done.map(({ item }) => item.taskId));
    } catch (error) {
      this.#deps.log({ target: this.#target, error }, 'cleaning failed; it is tried again');
      for (const item of items) failures.set(item.id, failureOf(error));
    } finally {
      heartbeat.stop();
    }
    await recordFailures(this.#deps, this.#target, items, failures, this.#clock);
  }
}

/** Looked at again within the hour, whatever the provider says. 0 where it names no time to come. */
function secondsUntil(time: unknown): number {
  const seconds = time instanceof Date ? Math.min((time.getTime() - Date.now()) / 1000, 3_600) : 0;
  return seconds > 0 ? Math.max(1, seconds) : 0;
}
