import type { TargetDefinition } from '../catalog/types.ts';
import { step } from '../domain/step.ts';
import {
  claimRun,
  finishRun,
  keepRun,
  type ReconcileResult,
  requestRuns,
  type RunClaim,
} from '../store/reconciliations.ts';
import { targetEvent } from './evidence.ts';
import { noticeFailover } from './failover.ts';
import { failureOf } from './failures.ts';
import { type Ownership, Stranger } from './ownership.ts';
import type { ReconcileDeps } from './reconcile-deps.ts';
import { leaseOf, ReconcileRun, RunLost, type RunOptions } from './reconcile-run.ts';

export interface ReconcilerOptions extends RunOptions {
  readonly deps: ReconcileDeps;
  readonly ownership: Pick<Ownership, 'prove'>;
  /** Seconds from one run to the next, give or take a tenth. */
  readonly everySeconds: number;
}

/** How often a replica asks whether a target's time has come. */
const TICK_MILLIS = 1_000;
/** A run that failed is tried again after this, or sooner if runs are; or after that, where nothing is issued until one is done. */
const AGAIN_SECONDS = 30;
const HURRY_SECONDS = 2;
/** So often in its lease a run's claim is kept while a target is slow. */
const BEATS = 4;
/** Targets being read by this process at once. */
const RUNS_AT_ONCE = 16;

/**
 * Compares each target with the store: at start, on schedule, and when asked. Of all replicas one reads a target at a time, by a
 * claim in the store; what it finds goes the way of every other end.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  /** By target: a run that lost its claim may still be under way. */
  readonly #running = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #known = new Set<string>();
  #unreconciled: ReadonlySet<string> = new Set();
  #timer: NodeJS.Timeout | undefined;
  #ticking: Promise<void> = Promise.resolve();

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  start(): void {
    const tick = async () => {
      await this.#tick();
      if (!this.#stopping.signal.aborted) this.#timer = setTimeout(begin, TICK_MILLIS);
    };
    const begin = () => {
      this.#ticking = tick();
    };
    begin();
  }

  /** Lets the runs in hand end; what they had not recorded is found again. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    clearTimeout(this.#timer);
    // It may have a claim on its way.
    await this.#ticking;
    await Promise.all(this.#running.values());
  }

  async #tick(): Promise<void> {
    const { deps } = this.#options;
    try {
      const targets = new Map([...deps.targets()].map((target) => [target.name, target]));
      const names = [...targets.keys()];
      this.#unreconciled = await noticeFailover(deps, names);
      await this.#askFor(names.filter((name) => !this.#known.has(name)));
      while (this.#running.size < RUNS_AT_ONCE && !this.#stopping.signal.aborted) {
        const free = names.filter((name) => !this.#running.has(name));
        step('claim-run.before');
        const claim = await claimRun(deps.db, free, deps.worker, leaseOf(this.#options));
        if (claim !== undefined) step('claim-run.after');
        const target = claim && targets.get(claim.target);
        if (claim === undefined || target === undefined) return;
        const run = this.#run(claim, target).finally(() => this.#running.delete(claim.target));
        this.#running.set(claim.target, run);
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
    const { deps } = this.#options;
    const started = performance.now();
    const lost = new AbortController();
    const beat = setInterval(() => this.#keep(claim, lost), (leaseOf(this.#options) * 1000) / BEATS);
    let result: ReconcileResult;
    try {
      result = await this.#compare(claim, definition, AbortSignal.any([this.#stopping.signal, lost.signal]));
      await this.#finish(claim, result);
    } catch (error) {
      deps.log({ target: claim.target, error }, 'a target could not be reconciled; another run takes over');
      return;
    } finally {
      clearInterval(beat);
    }
    const { target } = claim;
    if (result.outcome !== 'done') deps.log({ target, ...result }, 'a target could not be reconciled');
    if (result.unverified > 0) deps.found.unverified(target, result.unverified);
    deps.found.reconciled(target, result.outcome, (performance.now() - started) / 1000);
  }

  /** What is being read may take longer than the claim holds. */
  #keep(claim: RunClaim, lost: AbortController): void {
    const { deps } = this.#options;
    keepRun(deps.db, claim, leaseOf(this.#options))
      .then((ours) => {
        if (!ours) lost.abort(new RunLost());
      })
      .catch((error: unknown) => deps.log({ target: claim.target, error }, 'the claim of a run could not be extended'));
  }

  /** @throws RunLost, and whatever keeps the session from being opened. */
  async #compare(claim: RunClaim, definition: TargetDefinition, signal: AbortSignal): Promise<ReconcileResult> {
    const { deps, ownership } = this.#options;
    const session = deps.session(definition);
    const run = new ReconcileRun(deps, claim, session, this.#options, signal);
    const [outcome, says] = await this.#outcome(() => ownership.prove(claim.target, session), run);
    return { outcome, says, ...run.counts };
  }

  async #finish(claim: RunClaim, result: ReconcileResult): Promise<void> {
    const { deps } = this.#options;
    const { outcome, says, listed, ...found } = result;
    // Of what can not be listed nothing more will ever be known.
    const reconciled = (outcome === 'done' && result.waiting === 0) || outcome === 'unlisted';
    await deps.db.transaction({}, async (tx) => {
      const before = await finishRun(tx, claim, result, this.#nextSeconds(claim.target, result), reconciled);
      if (before !== undefined) {
        const { outcome: last, says: said } = before ?? { outcome: 'done', says: '' };
        // A target that is away for days must not fill the store.
        const told = last !== outcome || said !== says || isNews(found, before);
        if (told) tx.record(targetEvent('target.reconciled', deps, claim.target, { ...found, outcome, says, listed }));
      }
      step('finish-run.before');
    });
    step('finish-run.after');
  }

  #nextSeconds(target: string, { outcome, waiting }: ReconcileResult): number {
    const { deps, everySeconds, graceSeconds } = this.#options;
    if (this.#stopping.signal.aborted) return 0;
    const hurried = this.#unreconciled.has(target) && (outcome === 'failed' || outcome === 'stranger');
    const failed = outcome === 'failed' ? AGAIN_SECONDS : everySeconds;
    const soon = hurried ? HURRY_SECONDS : waiting > 0 ? graceSeconds + 1 : failed;
    return Math.min(soon, everySeconds) * (0.9 + deps.random() / 5);
  }

  async #outcome(prove: () => Promise<void>, run: ReconcileRun): Promise<[ReconcileResult['outcome'], string]> {
    try {
      await prove();
    } catch (error) {
      return [error instanceof Stranger ? 'stranger' : 'failed', failureOf(error).says];
    }
    try {
      if (!run.listable)
        return ['unlisted', 'the target can not be listed: what is in it and unknown here is not seen'];
      await run.run();
      return ['done', ''];
    } catch (error) {
      if (error instanceof RunLost) throw error;
      return ['failed', failureOf(error).says];
    }
  }
}

/** Whether a run found something. What stands from run to run is told when it changes. */
function isNews(found: Omit<ReconcileResult, 'outcome' | 'says' | 'listed'>, before: ReconcileResult | null): boolean {
  const { held, uninspected, ...rest } = found;
  const stood = [before?.held ?? 0, before?.uninspected ?? 0];
  return held !== stood[0] || uninspected !== stood[1] || Object.values(rest).some((count) => count > 0);
}
