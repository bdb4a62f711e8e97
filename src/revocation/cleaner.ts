import { step } from '../domain/step.ts';
import { bounded } from '../domain/within.ts';
import type { Session } from '../provider.ts';
import { type Claim, claimClock, type Claimed, markClean, postpone } from '../store/claims.ts';
import { askEach } from './answers.ts';
import type { RevocationDeps } from './deps.ts';
import { byRevision, type Ended, openSession } from './end-batch.ts';
import { engineEvent } from './evidence.ts';
import { countSilent, type Failures, failureOfAll, recordFailures } from './failures.ts';
import { asWriter } from './fence-writer.ts';
import { Heartbeat } from './heartbeat.ts';
import { look, sift, toRef } from './looking.ts';
import { secondsUntil } from './not-before.ts';

const BATCH = 100;
/** So much of a claim is left for cleaning, where what is contained waits for what is still open. */
const LEFT_MILLIS = 5_000;
/** What waits to be cleaned waits this long at most for an address that is in use no more. */
const FORGET_SECONDS = 3;

/**
 * Cleans what is contained on one target: reap → verify → clean. Behind the fencing, never in its way: what comes together while
 * a batch is at work is cleaned together after it.
 */
export class Cleaner {
  readonly #deps: RevocationDeps;
  readonly #target: string;
  readonly #told: (items: number, silent: number) => void;
  #waiting: Ended[] = [];
  #running: Promise<void> | undefined;
  #behind = false;
  #later: NodeJS.Timeout | undefined;
  #clock: () => Date = () => new Date();

  /** @param told How many items were tried, and to how many of them the target said nothing. */
  constructor(deps: RevocationDeps, target: string, told: (items: number, silent: number) => void) {
    this.#deps = deps;
    this.#target = target;
    this.#told = told;
  }

  add(claim: Claim, ended: readonly Ended[]): void {
    if (ended.length === 0) return;
    this.#clock = () => claimClock(claim);
    // It is contained by now, whatever it was when it was claimed: so says the evidence of what fails from here on.
    this.#waiting.push(...ended.map((one) => ({ ...one, item: { ...one.item, contained: true } })));
    this.#begin();
  }

  /** Whether more may be open than what is in hand: then what is not cut yet has the target, and the cores, to itself for a while. */
  behind(behind: boolean): void {
    this.#behind = behind;
    this.#begin();
  }

  /** Lets what was added be cleaned. */
  async idle(): Promise<void> {
    this.behind(false);
    await this.#running;
  }

  #begin(): void {
    clearTimeout(this.#later);
    if (this.#running !== undefined || this.#waiting.length === 0) return;
    const millis = this.#patience();
    if (millis > 0) {
      this.#later = setTimeout(() => this.#begin(), millis);
      return;
    }
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      this.#begin();
    });
  }

  #patience(): number {
    if (!this.#behind) return 0;
    const first = this.#waiting.reduce((least, { heldUntil }) => Math.min(least, heldUntil), Number.POSITIVE_INFINITY);
    return first - LEFT_MILLIS - performance.now();
  }

  async #run(): Promise<void> {
    try {
      while (this.#waiting.length > 0 && this.#patience() <= 0) {
        const sessions = new Map<Session, Claimed[]>();
        // What waited longer than its claim holds is claimed again by now, or will be.
        const now = performance.now();
        for (const { item, session } of this.#waiting.splice(0, BATCH).filter(({ heldUntil }) => heldUntil > now))
          sessions.set(session, [...(sessions.get(session) ?? []), item]);
        for (const [session, items] of sessions) {
          await this.#clean(session, items);
          for (const some of byRevision(items)) await this.#forget(session, some);
        }
      }
    } catch (error) {
      // The store does not answer: what is contained stays so, and is claimed again for cleaning.
      this.#deps.log({ target: this.#target, error }, 'what was cleaned can not be recorded now');
      this.#waiting = [];
    }
  }

  async #clean(session: Session, items: readonly Claimed[]): Promise<void> {
    const heartbeat = new Heartbeat(this.#deps, items);
    const failures: Failures = new Map();
    try {
      const { signal } = heartbeat;
      step('reap.before');
      const outcomes = await asWriter(this.#deps, session, this.#target, items, signal, (view) =>
        askEach(items.map(toRef), signal, (refs, limited) => session.reap(refs, limited, view)),
      );
      step('reap.after');
      const reaped = sift(items, outcomes, failures);
      const waiting = items.flatMap((item, index) => {
        const seconds = secondsUntil(outcomes[index]?.notBefore);
        return reaped.has(item) && seconds > 0 ? [{ item, seconds }] : [];
      });
      for (const { item } of waiting) reaped.delete(item);
      const ready = [...reaped.keys()];
      step('verify-clean.before');
      const seen = await look(this.#deps, session, ready, failures, signal, 'clean');
      step('verify-clean.after');
      const now = this.#clock();
      const done = ready.flatMap((item) => {
        const evidence = seen.get(item.id);
        if (evidence === undefined) return [];
        const event = engineEvent('revocation.clean', this.#deps, this.#target, item, { evidence });
        return [{ item, evidence, now, event }];
      });
      heartbeat.stop();
      step('clean.before');
      if (done.length > 0) await markClean(this.#deps.db, done);
      if (waiting.length > 0) await postpone(this.#deps.db, waiting);
      step('clean.after');
      this.#deps.db.announce(done.map(({ item }) => item.taskId));
    } catch (error) {
      this.#deps.log({ target: this.#target, error }, 'cleaning failed; it is tried again');
      for (const item of items) failures.set(item.id, failureOfAll(error));
    } finally {
      heartbeat.stop();
    }
    const silent = countSilent(items, failures);
    if (!heartbeat.signal.aborted) this.#told(items.length, silent);
    // To a target that says nothing no more is sent; the rest is claimed again for cleaning.
    if (silent === items.length) this.#waiting = [];
    await recordFailures(this.#deps, this.#target, items, failures, this.#clock);
  }

  /**
   * What was ended at the address in force now, and granted at another one, is ended there too: another database of the same
   * cluster would count it as living for ever. It is contained already, so that a dead address is nobody's failure.
   */
  async #forget(session: Session, items: readonly Claimed[]): Promise<void> {
    try {
      const granted = await openSession(this.#deps, this.#target, items, true);
      // A document that is written whole is written by its one writer alone.
      if (granted === session || granted.oneDocument === true) return;
      await bounded(FORGET_SECONDS * 1000, [], async (signal) => {
        await granted.fence(items.map(toRef), signal);
        await granted.reap(items.map(toRef), signal);
      });
    } catch (error) {
      this.#deps.log({ target: this.#target, error }, 'the address that it was granted at could not be told of an end');
    }
  }
}
