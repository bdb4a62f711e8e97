import { step } from '../domain/step.ts';
import type { Database } from '../store/database.ts';
import { forgetProofs } from '../store/proofs.ts';
import { findClaimableTargets, findMoments, markOverdue, releaseLostClaims } from '../store/revocations.ts';
import { BUCKET_MILLIS, HORIZON_SECONDS } from './alarm-clock.ts';
import type { RevocationDeps } from './deps.ts';
import { engineEvent } from './evidence.ts';

const MOST_A_SWEEP = 500;
/** Forgotten in one statement. */
const MOST_PROOFS = 2_000;
const FEED_SECONDS = 20;

export interface SweeperOptions {
  readonly db: Database;
  readonly deps: RevocationDeps;
  readonly sweepSeconds: number;
  readonly overdueSeconds: number;
  /** Ends tasks that have outlived their `not_after`; answers how many. */
  readonly expireTasks: (limit: number) => Promise<number>;
  /** Lets approvals lapse that were not decided or collected in time; answers how many. */
  readonly lapseApprovals: (limit: number) => Promise<number>;
  readonly wake: (target: string) => void;
  readonly alarm: (target: string, millis: number) => void;
}

/**
 * Finds in the store what no alarm rang for. Every replica runs one; rows that another has in hand are skipped. Its cost grows
 * with what is due, not with what is outstanding.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #fedAt = Number.NEGATIVE_INFINITY;
  #stopped = false;
  /** When the last whole sweep ended, in milliseconds of `performance.now()`. */
  lastSweep = Number.NEGATIVE_INFINITY;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#sweep().finally(() => {
      if (!this.#stopped) this.#timer = setTimeout(() => this.start(), this.#options.sweepSeconds * 1000);
    });
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #sweep(): Promise<void> {
    const { deps } = this.#options;
    // One step that fails must not keep the others from their work.
    const steps = [
      () => this.#releaseClaims(),
      () => this.#wakeTargets(),
      () => this.#expireTasks(),
      () => this.#lapseApprovals(),
      () => this.#cryOverdue(),
      () => this.#feedAlarms(),
      () => this.#forgetProofs(),
    ];
    let failed = false;
    for (const each of steps) {
      await each().catch((error: unknown) => {
        failed = true;
        deps.log({ error }, 'a step of the sweep failed');
      });
    }
    if (!failed) this.lastSweep = performance.now();
  }

  async #releaseClaims(): Promise<void> {
    const { db, deps } = this.#options;
    await db.transaction({}, async (tx) => {
      for (const lost of await releaseLostClaims(tx, MOST_A_SWEEP)) {
        tx.record(engineEvent('revocation.claim_lost', deps, lost.target, lost, { claimed_by: lost.claimedBy }));
      }
      step('release-claims.before');
    });
    step('release-claims.after');
  }

  async #wakeTargets(): Promise<void> {
    step('wake-targets.before');
    for (const target of await findClaimableTargets(this.#options.db)) this.#options.wake(target);
    step('wake-targets.after');
  }

  async #expireTasks(): Promise<void> {
    step('expire-tasks.before');
    while ((await this.#options.expireTasks(MOST_A_SWEEP)) === MOST_A_SWEEP && !this.#stopped);
    step('expire-tasks.after');
  }

  async #lapseApprovals(): Promise<void> {
    while ((await this.#options.lapseApprovals(MOST_A_SWEEP)) === MOST_A_SWEEP && !this.#stopped);
  }

  async #cryOverdue(): Promise<void> {
    const { db, deps, overdueSeconds } = this.#options;
    await db.transaction({}, async (tx) => {
      for (const late of await markOverdue(tx, overdueSeconds, MOST_A_SWEEP)) {
        tx.record(engineEvent('revocation.overdue', deps, late.target, late, { due_at: late.dueAt.toISOString() }));
        tx.changed(late.taskId);
        deps.observer.overdue(late.target);
        deps.log({ target: late.target, grant_id: late.grantId, due_at: late.dueAt }, 'a revocation is overdue');
      }
      step('cry-overdue.before');
    });
    step('cry-overdue.after');
  }

  /** Sets alarms for what came within the horizon since the last time; the first time, for all within it. */
  async #feedAlarms(): Promise<void> {
    const now = performance.now() / 1000;
    if (now - this.#fedAt < FEED_SECONDS) return;
    const first = this.#fedAt === Number.NEGATIVE_INFINITY;
    step('feed-alarms.before');
    const from = first ? 0 : HORIZON_SECONDS - 2 * FEED_SECONDS;
    for (const { target, inMillis } of await findMoments(this.#options.db, from, HORIZON_SECONDS, BUCKET_MILLIS))
      this.#options.alarm(target, inMillis);
    step('feed-alarms.after');
    this.#fedAt = now;
  }

  /** Last: how many there are hangs on how much is asked, and what ends access waits for none of them. */
  async #forgetProofs(): Promise<void> {
    step('forget-proofs.before');
    while ((await forgetProofs(this.#options.db, MOST_PROOFS)) === MOST_PROOFS && !this.#stopped);
    step('forget-proofs.after');
  }
}
