import type { TargetDefinition } from '../catalog/types.ts';
import { step } from '../domain/step.ts';
import { claimRun, finishRun, type ReconcileResult, requestRuns, type RunClaim } from '../store/reconciliations.ts';
import { targetEvent } from './evidence.ts';
import { failureOf } from './failures.ts';
import { type Ownership, Stranger } from './ownership.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';
import { ReconcileRun, RunLost, type RunOptions, RUN_LEASE_SECONDS } from './reconcile-run.ts';

export interface ReconcilerOptions extends RunOptions {
  readonly deps: ReconcileDeps;
  readonly ownership: Pick<Ownership, 'prove'>;
  /** Seconds from one run to the next, give or take a tenth. */
  readonly everySeconds: number;
}

/** How often a replica asks whether a target's time has come. */
const TICK_MILLIS = 1_000;
/** A run that failed is tried again after this, or sooner if runs are. */
const AGAIN_SECONDS = 30;
/** Targets being read by this process at once. */
const RUNS_AT_ONCE = 16;

/**
 * Compares each target with the store: at start, on schedule, and when asked. Of all replicas one reads a target at a time, by a
 * claim in the store; what it finds goes the way of every other end.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #running = new Set<Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #known = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  start(): void {
    const tick = async () => {
      await this.#tick();
      if (!this.#stopping.signal.aborted) this.#timer = setTimeout(() => void tick(), TICK_MILLIS);
    };
    void tick();
  }

  /** Lets the runs in hand end; what they had not recorded is found again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    await Promise.all(this.#running);
  }

  async #tick(): Promise<void> {
    const { deps } = this.#options;
    try {
      const targets = new Map([...deps.targets()].map((target) => [target.name, target]));
      const names = [...targets.keys()];
      await this.#askFor(names.filter((name) => !this.#known.has(name)));
      while (this.#running.size < RUNS_AT_ONCE) {
        step('claim-run.before');
        const claim = await claimRun(deps.db, names, deps.worker, RUN_LEASE_SECONDS);
        if (claim !== undefined) step('claim-run.after');
        const target = claim && targets.get(claim.target);
        if (claim === undefined || target === undefined) return;
        const run = this.#run(claim, target).finally(() => this.#running.delete(run));
        this.#running.add(run);
      }
    } catch (error) {
      deps.log({ error }, 'no target can be reconciled now');
    }
  }

  /** At start, and when a catalog brings a new target. */
  async #askFor(targets: readonly string[]): Promise<void> {
    if (targets.length === 0) return;
    step('request-runs.before');
    await requestRuns(this.#options.deps.db, targets);
    step('request-runs.after');
    for (const target of targets) this.#known.add(target);
  }

  async #run(claim: RunClaim, definition: TargetDefinition): Promise<void> {
    const { deps, ownership, everySeconds, graceSeconds } = this.#options;
    const started = performance.now();
    const { target } = claim;
    let result: ReconcileResult;
    try {
      const session = deps.session(definition);
      const run = new ReconcileRun(deps, claim, session, this.#options, this.#stopping.signal);
      const [outcome, says] = await this.#outcome(() => ownership.prove(target, session), run);
      result = { outcome, says, ...run.counts };
      const soon = outcome === 'failed' ? AGAIN_SECONDS : result.waiting > 0 ? graceSeconds + 1 : everySeconds;
      const next = this.#stopping.signal.aborted ? 0 : Math.min(soon, everySeconds) * (0.9 + deps.random() / 5);
      await deps.db.transaction({}, async (tx) => {
        if (await finishRun(tx, claim, result, next)) {
          const { listed, ...found } = run.counts;
          const told = outcome !== 'done' || Object.values(found).some((count) => count > 0);
          if (told) tx.record(targetEvent('target.reconciled', deps, target, { ...result, listed }));
        }
        step('finish-run.before');
      });
      step('finish-run.after');
    } catch (error) {
      deps.log({ target, error }, 'a target could not be reconciled; another run takes over');
      return;
    }
    if (result.outcome !== 'done') deps.log({ target, ...result }, 'a target could not be reconciled');
    if (result.unverified > 0) deps.found.unverified(target, result.unverified);
    deps.found.reconciled(target, result.outcome, (performance.now() - started) / 1000);
  }

  async #outcome(prove: () => Promise<void>, run: ReconcileRun): Promise<[ReconcileResult['outcome'], string]> {
    try {
      await prove();
    } catch (error) {
      return [error instanceof Stranger ? 'stranger' : 'failed', failureOf(error).says];
    }
    try {
      await run.run();
      return ['done', ''];
    } catch (error) {
      if (error instanceof RunLost) throw error;
      return ['failed', failureOf(error).says];
    }
  }
}
