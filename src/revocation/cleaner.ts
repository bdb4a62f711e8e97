import { step } from '../domain/step.ts';
import { type Claim, claimClock, type Claimed, markClean } from '../store/claims.ts';
import type { RevocationDeps } from './deps.ts';
import { openSession } from './end-batch.ts';
import { engineEvent } from './evidence.ts';
import { type Failures, failureOf, recordFailures } from './failures.ts';
import { Heartbeat } from './heartbeat.ts';
import { callSignal, look, sift, toRef } from './looking.ts';

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
      step('reap.before');
      const outcomes = await session.reap(items.map(toRef), callSignal(heartbeat.signal));
      step('reap.after');
      const reaped = sift(items, outcomes, failures);
      step('verify-clean.before');
      const seen = await look(session, [...reaped.keys()], failures, heartbeat.signal, 'clean');
      step('verify-clean.after');
      const now = this.#clock();
      const done = [...reaped.keys()].flatMap((item) => {
        const evidence = seen.get(item.id);
        if (evidence === undefined) return [];
        const event = engineEvent('revocation.clean', this.#deps, this.#target, item, { evidence });
        return [{ item, evidence, now, event }];
      });
      heartbeat.stop();
      step('clean.before');
      if (done.length > 0) await markClean(this.#deps.db, done);
      step('clean.after');
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
