import { step } from '../domain/step.ts';
import { type Claim, claimDue, hasten } from '../store/claims.ts';
import type { Queryable, Transaction } from '../store/database.ts';
import { fallDue } from '../store/revocations.ts';
import { Breaker, type BreakerState } from './breaker.ts';
import { Cleaner } from './cleaner.ts';
import { Concurrency } from './concurrency.ts';
import type { RevocationDeps } from './deps.ts';
import { endBatch } from './end-batch.ts';
import { engineEvent, targetEvent } from './evidence.ts';
import { tellingHang } from './hanging.ts';
import { LEASE_SECONDS } from './heartbeat.ts';

const MOST_THAT_FALL = 200;
/** Milliseconds from one claim to the next: what falls due meanwhile goes together, since a batch of one costs nearly what ten do. */
const PACE_MILLIS = 20;
/** So long it is believed that nothing can be claimed, after it could not. */
const UNCLAIMED_MILLIS = 10_000;

/** Ends what is due on one target. Its own lanes and breaker: a sick target takes nothing from another. */
export class TargetWorker {
  readonly #deps: RevocationDeps;
  readonly #target: string;
  readonly #cleaner: Cleaner;
  readonly #breaker: Breaker;
  readonly #concurrency = new Concurrency();
  readonly #lanes = new Set<Promise<void>>();
  #probe: NodeJS.Timeout | undefined;
  #next: NodeJS.Timeout | undefined;
  /** When the last claim was made, by `performance.now()`. */
  #claimedAt = Number.NEGATIVE_INFINITY;
  #woken = false;
  /** A lane that was one too many left while more may be due. */
  #left = false;
  #falls = false;
  #stopped = false;

  constructor(deps: RevocationDeps, target: string) {
    this.#deps = { ...deps, wake: () => this.wake(false) };
    this.#target = target;
    this.#breaker = new Breaker(() => performance.now(), deps.random);
    this.#cleaner = new Cleaner(this.#deps, target, (items, silent) => this.#told(items, silent));
  }

  /**
   * Something may be due. Cheap when nothing is.
   * @param falls Its time may have come by itself, so that it is not marked due yet.
   */
  wake(falls: boolean): void {
    this.#woken = true;
    this.#falls ||= falls;
    this.#begin();
  }

  #begin(): void {
    if (this.#stopped || this.#lanes.size >= this.#concurrency.lanes) return;
    const early = this.#claimedAt + PACE_MILLIS - performance.now();
    if (early > 0) {
      this.#next ??= setTimeout(() => {
        this.#next = undefined;
        this.#begin();
      }, early);
      return;
    }
    this.#claimedAt = performance.now();
    const lane = this.#run().finally(() => {
      this.#lanes.delete(lane);
      // Lanes that leave at one moment may be all that there were.
      if (this.#lanes.size > 0 || !this.#left) return;
      this.#left = false;
      this.wake(false);
    });
    this.#lanes.add(lane);
  }

  /** Lets the batches in hand finish. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#probe);
    clearTimeout(this.#next);
    await Promise.all(this.#lanes);
    await this.#cleaner.idle();
  }

  async #run(): Promise<void> {
    try {
      while (this.#woken && !this.#stopped) {
        this.#woken = false;
        await this.#endDue();
      }
    } catch (error) {
      // The store does not answer. What is due stays due; the sweeper wakes us again.
      this.#deps.log({ target: this.#target, error }, 'nothing can be claimed now');
      this.#deps.unclaimed(this.#target, UNCLAIMED_MILLIS);
    }
  }

  async #endDue(): Promise<void> {
    while (!this.#stopped) {
      if (this.#lanes.size > this.#concurrency.lanes) {
        this.#left = true;
        return;
      }
      const asked = this.#breaker.ask();
      if (asked.may === 'wait') {
        if (this.#falls) await this.#fallDue(async () => {});
        this.#probe ??= setTimeout(() => {
          this.#probe = undefined;
          this.wake(false);
        }, asked.millis);
        return;
      }
      const more =
        asked.may === 'probe' ? await this.#probeNow() : await this.#endBatch(this.#concurrency.batch, false);
      if (!more) return;
    }
  }

  /** One item, whatever its next try was: nothing may be due just now. */
  async #probeNow(): Promise<boolean> {
    this.#deps.observer.breaker(this.#target, 'probing');
    try {
      return await this.#endBatch(1, true);
    } finally {
      this.#breaker.abstained();
      this.#deps.observer.breaker(this.#target, this.#breaker.state);
    }
  }

  /** @returns whether there may be more. */
  async #endBatch(limit: number, early: boolean): Promise<boolean> {
    const claim = await this.#claim(limit, early);
    const more = claim !== undefined && claim.items.length >= limit;
    this.#cleaner.behind(more && !early);
    this.#concurrency.behind(more && !early);
    if (claim === undefined) return false;
    if (more && !early) this.wake(false);
    const began = performance.now();
    const { contained, asked, silent } = await endBatch(this.#deps, claim);
    this.#cleaner.add(claim, contained);
    // What was contained and lives again is due once more.
    if (claim.items.some((item) => item.contained)) this.wake(false);
    // What failed at once, or hung, says nothing of what a batch takes.
    const millis = contained.length === asked ? performance.now() - began : undefined;
    if (asked > 0) this.#told(asked, silent, millis);
    return more;
  }

  /** What has fallen due meanwhile is marked so in the same transaction: one commit between the deadline and the fence. */
  async #claim(limit: number, early: boolean): Promise<Claim | undefined> {
    const { db, worker } = this.#deps;
    const claimOn = (queryable: Queryable) => claimDue(queryable, this.#target, worker, LEASE_SECONDS, limit, early);
    step('claim.before');
    const claim = await tellingHang(this.#deps, this.#target, () =>
      this.#falls ? this.#fallDue(claimOn) : claimOn(db),
    );
    if (claim !== undefined) step('claim.after');
    return claim;
  }

  #told(items: number, silent: number, millis?: number): void {
    this.#concurrency.told(items, silent, millis);
    const before = this.#breaker.state;
    if (silent === items) this.#breaker.silent();
    else this.#breaker.answered();
    const state = this.#breaker.state;
    // Whatever became of this lane, one asks when the next probe may go: nothing else may be due for long.
    if (state === 'open') this.wake(false);
    if (state === before) return;
    this.#deps.observer.breaker(this.#target, state);
    // A probe that failed is no news.
    if (before === 'probing' && state === 'open') return;
    this.#deps.log({ target: this.#target, breaker: state }, `the breaker of a target is ${state}`);
    void this.#tell(state);
    if (state === 'closed') void this.#resume();
  }

  async #tell(state: BreakerState): Promise<void> {
    const event = targetEvent('target.breaker', this.#deps, this.#target, { target: this.#target, state });
    await this.#deps.db
      .transaction({}, async (tx) => tx.record(event))
      .catch((error: unknown) =>
        this.#deps.log({ target: this.#target, error }, 'the state of a breaker can not be recorded now'),
      );
  }

  /** What backed off while the target said nothing does not wait any longer. */
  async #resume(): Promise<void> {
    await hasten(this.#deps.db, this.#target).catch((error: unknown) =>
      this.#deps.log({ target: this.#target, error }, 'what waits for its next try goes on waiting'),
    );
    this.wake(false);
  }

  async #fallDue<T>(then: (tx: Transaction) => Promise<T>): Promise<T> {
    this.#falls = false;
    let fell = 0;
    const answer = await this.#deps.db.transaction({}, async (tx) => {
      const fallen = await fallDue(tx, this.#target, MOST_THAT_FALL);
      for (const one of fallen) {
        tx.record(engineEvent('grant.ended', this.#deps, this.#target, one, { by: 'deadline' }));
        tx.changed(one.taskId);
      }
      fell = fallen.length;
      if (fell > 0) step('fall-due.before');
      return then(tx);
    });
    if (fell > 0) step('fall-due.after');
    // Only now: whoever looked before the commit has met the same ones, held, and found nothing.
    if (fell === MOST_THAT_FALL) this.wake(true);
    return answer;
  }
}
