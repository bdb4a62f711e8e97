import { adopt, type FenceRequest, type PlannedFence, planFence, supersedes } from './plan.ts';
import type { StandingFence } from './standing.ts';

type Standing = readonly (readonly [bigint, StandingFence])[];

/**
 * A plan that denies all that these do, too, and so makes them needless; where that would deny a whole role, one without: they stand, after
 * all. @param issuedBy See `adopt`.
 */
export function planWith(untaken: Standing, issuedBy: number, request: FenceRequest) {
  const previous = untaken.reduce((state, [, { says }]) => adopt(state, says, issuedBy), request.previous);
  const all = planFence({ ...request, previous });
  if (untaken.length === 0 || (all !== undefined && all.form !== 'role-wide')) return { plan: all, taken: untaken };
  return { plan: planFence(request), taken: [] };
}

/**
 * The epochs before ours: those that this broker gave up, and those of other brokers as they stood when it began. What they deny is taken
 * over, so that they can be taken away: of a broker that is no more nobody else does. One that has changed since is at work.
 */
export class Predecessors {
  readonly #left = new Set<bigint>();
  /** What of them is taken over, and since when a document of ours that denies it stands. */
  readonly #taken = new Map<bigint, { readonly text: string; readonly since: number }>();
  readonly #looked = new Set<bigint>();
  #others: ReadonlyMap<bigint, string> | undefined;

  get left(): readonly bigint[] {
    return [...this.#left];
  }

  /** One that this broker writes no more. Its last write may still arrive. */
  leave(epoch: bigint): void {
    this.#left.add(epoch);
  }

  /** It is taken away. Should it come again, it is taken over again; its number is not given to another one. */
  forget(epoch: bigint): void {
    this.#taken.delete(epoch);
  }

  /** Those that are not taken over yet. Of other brokers only as they stood at first: two at work would for ever tell each other. */
  untaken(fences: Standing): Standing {
    const others = this.#others ?? new Map(fences.map(([epoch, { text }]) => [epoch, text]));
    this.#others = others;
    return fences.filter(
      ([epoch, { text }]) =>
        (this.#left.has(epoch) || others.get(epoch) === text) && this.#taken.get(epoch)?.text !== text,
    );
  }

  /** A document that denies all that these do stands from now on. */
  take(fences: Standing): void {
    for (const [epoch, { text }] of fences) this.#taken.set(epoch, { text, since: performance.now() });
  }

  /** Whether there is any that may be needless by now, and was not looked at since. */
  areSettled(settledMillis: number): boolean {
    const now = performance.now();
    return [...this.#taken].some(
      ([epoch, { since }]) => !this.#left.has(epoch) && !this.#looked.has(epoch) && now - since > settledMillis,
    );
  }

  /** What stands now of those that are settled stays: its broker is at work. */
  looked(): void {
    for (const epoch of this.#taken.keys()) this.#looked.add(epoch);
  }

  /** A deletion may be in force sooner than what was written before it: only what was written so long ago counts. */
  isNeedless(epoch: bigint, { text, says }: StandingFence, plan: PlannedFence, settledMillis: number): boolean {
    const taken = this.#taken.get(epoch);
    if (taken === undefined || taken.text !== text) return false;
    return performance.now() - taken.since > settledMillis && supersedes(plan.says, plan.kept, says);
  }
}
