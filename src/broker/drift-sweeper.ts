import { MayflyError } from '../domain/errors.ts';
import { decideAgain, type DecideAgainDeps } from './decide-again.ts';
import type { BrokerDeps } from './deps.ts';
import { distrustIssuers } from './distrust-issuers.ts';
import { forgetSignals, lapseSignals } from './lapse-signals.ts';

/** What policy failed to decide is tried again after so long, then after twice that, and so on. */
const FIRST_RETRY_SECONDS = 5;
const LAST_RETRY_SECONDS = 300;
/** Signals that are over are forgotten no more often, whoever wakes it. */
const FORGET_MILLIS = 60_000;
/** Of one pass: what fails is logged by example. */
const EXAMPLES = 5;

export interface DriftObserver {
  driftDecided(outcome: 'stays' | 'ended' | 'reported' | 'failed', count: number): void;
  /** @param stopped Policy failed for so many that the sweep stands still until its next try. */
  driftStopped(stopped: boolean): void;
}

export interface DriftSweeperOptions {
  readonly deps: DecideAgainDeps & Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>;
  readonly everySeconds: number;
  readonly observer: DriftObserver;
  /** Wakes those of the other replicas. Never throws, never blocks. */
  readonly spread: () => void;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/**
 * Asks again whether living grants are still permitted: after each new revision, and whenever something moved that a decision hangs
 * on. Every replica runs one, and they share the work. All of it stands in the store, so that whoever looks finds what is left.
 */
export class DriftSweeper {
  readonly #options: DriftSweeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #again = false;
  #ended = false;
  /** Trust was compared with the living tasks for this one. */
  #trustOf: number | undefined;
  /** What policy failed for (`triedOf`). Left alone until `#retryAt`, in milliseconds of `performance.now()`. */
  #failed = new Map<string, readonly string[]>();
  /** It was too much: until then nothing is decided again but what signals move. */
  #standsStill = false;
  #retryAt = 0;
  #forgetAt = 0;
  /** Another revision decides since the last pass began. */
  #revised = false;
  #retrySeconds = FIRST_RETRY_SECONDS;

  constructor(options: DriftSweeperOptions) {
    this.#options = options;
  }

  /** Looks now, and from then on every so often. */
  start(): void {
    this.#timer = setTimeout(() => this.start(), this.#options.everySeconds * 1000);
    this.wake();
  }

  /** Something may have drifted. Never throws, never blocks; before the start it does nothing. */
  wake(): void {
    this.#again = true;
    if (this.#running === undefined && this.#timer !== undefined) this.#run();
  }

  /** The same, on every replica. */
  spread(): void {
    this.wake();
    this.#options.spread();
  }

  /** Another revision decides now: what failed by the one before says nothing of it. */
  revise(): void {
    this.#revised = true;
    this.wake();
  }

  async stop(): Promise<void> {
    this.#ended = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #run(): void {
    const { deps, log } = this.#options;
    if (this.#ended || !this.#again || !deps.catalog.ready) return;
    this.#again = false;
    this.#running = this.#pass()
      .catch((error: unknown) => log({ error }, 'a drift sweep broke off; what is left is tried again'))
      .finally(() => {
        this.#running = undefined;
        this.#run();
      });
  }

  async #pass(): Promise<void> {
    await this.#lapse();
    if (this.#revised) this.#retrySeconds = FIRST_RETRY_SECONDS;
    const retries = this.#revised || performance.now() >= this.#retryAt;
    this.#revised = false;
    if (retries) {
      this.#failed.clear();
      this.#standsStill = false;
    }
    await this.#decide();
    if (retries) this.#cry();
    await this.#distrust();
  }

  /** What can not be told of signals must not keep the rest from being decided. */
  async #lapse(): Promise<void> {
    const { deps, log } = this.#options;
    await lapseSignals(deps).catch((error: unknown) => log({ error }, 'signals that have expired are looked at again'));
    if (performance.now() < this.#forgetAt) return;
    this.#forgetAt = performance.now() + FORGET_MILLIS;
    await forgetSignals(deps).catch((error: unknown) => log({ error }, 'signals that are over are forgotten later'));
  }

  async #decide(): Promise<void> {
    const { deps, observer } = this.#options;
    const over: string[] = [];
    for (let more = true; more && !this.#ended; ) {
      const slice = await decideAgain(deps, {
        except: [...this.#failed.keys(), ...over],
        signalled: this.#standsStill,
      });
      observer.driftDecided('stays', slice.stayed);
      observer.driftDecided('ended', slice.ended);
      observer.driftDecided('reported', slice.reported);
      observer.driftDecided('failed', slice.failed.size);
      for (const [id, errors] of slice.failed) this.#failed.set(id, errors);
      over.push(...slice.over);
      if (slice.outcome === 'stale') await deps.catalog.refresh();
      // What signals move is still decided, and what they forbid still ends.
      const stops = slice.outcome === 'failed' && !this.#standsStill;
      if (stops) this.#standsStill = true;
      more = stops || (slice.outcome === 'done' && slice.more);
    }
  }

  /** Says what policy failed for, and when that is tried again. */
  #cry(): void {
    const { observer, log } = this.#options;
    observer.driftStopped(this.#standsStill);
    if (this.#failed.size === 0) {
      this.#retrySeconds = FIRST_RETRY_SECONDS;
      return;
    }
    const examples = [...this.#failed]
      .slice(0, EXAMPLES)
      .map(([id, errors]) => ({ grant_id: `grt_${id.split(' ', 1).join('')}`, errors }));
    log(
      { failed: this.#failed.size, examples, retry_seconds: this.#retrySeconds },
      this.#standsStill
        ? 'the drift sweep has stopped: policy fails for too many living grants, and revokes none of them'
        : 'policy fails for living grants, which are neither revoked nor retained by that',
    );
    this.#retryAt = performance.now() + this.#retrySeconds * 1000;
    this.#retrySeconds = Math.min(2 * this.#retrySeconds, LAST_RETRY_SECONDS);
  }

  /** Once for each revision: no task is opened under it by those whom it does not trust. */
  async #distrust(): Promise<void> {
    const { deps } = this.#options;
    const active = deps.catalog.current();
    if (this.#ended || this.#trustOf === active.number) return;
    try {
      await distrustIssuers(deps, active);
      this.#trustOf = active.number;
    } catch (error) {
      // It is looked at again, by that revision.
      if (!(error instanceof MayflyError) || error.code !== 'catalog_changed') throw error;
    }
  }
}
