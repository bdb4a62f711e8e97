import type { AlarmClock } from './alarm-clock.ts';
import type { RevocationDeps } from './deps.ts';
import { Sweeper, type SweeperOptions } from './sweeper.ts';
import { TargetWorker } from './target-worker.ts';

export interface EngineOptions
  extends Pick<SweeperOptions, 'sweepSeconds' | 'overdueSeconds' | 'expireTasks' | 'lapseApprovals'> {
  readonly deps: RevocationDeps;
  readonly clock: Pick<AlarmClock, 'in' | 'standIn' | 'watch' | 'close'>;
}

/** All that ends grants in this process: a worker per target, the alarms that wake it, and the sweeper behind both. */
export class RevocationEngine {
  readonly #options: EngineOptions;
  readonly #workers = new Map<string, TargetWorker>();
  readonly #sweeper: Sweeper;
  #stopped = false;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#sweeper = new Sweeper({
      ...options,
      db: options.deps.db,
      wake: (target) => this.wake(target),
      alarm: (target, millis) => options.clock.in(target, millis),
    });
  }

  start(): void {
    this.#sweeper.start();
  }

  /** Listens for the alarms of these targets. */
  watch(targets: Iterable<string>): void {
    for (const target of targets) this.#options.clock.watch(target);
  }

  /** Something is due now: this process begins at once, and the alarm reaches another if this one dies. */
  now(target: string): void {
    this.wake(target, false);
    this.#options.clock.standIn(target);
  }

  in(target: string, millis: number): void {
    this.#options.clock.in(target, millis);
  }

  /** @param falls Its time may have come by itself. */
  wake(target: string, falls = true): void {
    if (this.#stopped) return;
    const worker = this.#workers.get(target) ?? new TargetWorker(this.#options.deps, target);
    this.#workers.set(target, worker);
    worker.wake(falls);
  }

  /** Seconds since the last whole sweep; infinite before the first. */
  get sweepAge(): number {
    return (performance.now() - this.#sweeper.lastSweep) / 1000;
  }

  /** Stops taking new work and lets the batches in hand finish. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#sweeper.stop();
    await Promise.all([...this.#workers.values()].map((worker) => worker.stop()));
    await this.#options.clock.close();
  }
}
