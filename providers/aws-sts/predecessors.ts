import { adopt, type FenceState, type PlannedFence, supersedes } from './plan.ts';
import type { StandingFence } from './standing.ts';

/**
 * The epochs before ours: those that this broker gave up, and those of other brokers as they stood when it began. What they deny is taken
 * over, so that they can be taken away: of a broker that is no more nobody else does. One that has changed since is at work.
 */
export class Predecessors {
  readonly #left = new Set<bigint>();
  /** What of them is taken over, and since when a document of ours that denies it stands. */
  readonly #taken = new Map<bigint, { readonly text: string; readonly since: number | null }>();
  #begun = false;

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

  /** The state with what they deny. Those of others once: two at work would for ever tell each other. @param issuedBy See `adopt`. */
  takeOver(
    state: FenceState | null,
    fences: readonly (readonly [bigint, StandingFence])[],
    issuedBy: number,
  ): FenceState | null {
    let taken = state;
    for (const [epoch, { text, says }] of fences) {
      if ((this.#begun && !this.#left.has(epoch)) || this.#taken.get(epoch)?.text === text) continue;
      taken = adopt(taken, says, issuedBy);
      this.#taken.set(epoch, { text, since: null });
    }
    this.#begun = true;
    return taken;
  }

  /** What was planned from the state with all of them stands. */
  published(): void {
    for (const [epoch, { text, since }] of this.#taken)
      if (since === null) this.#taken.set(epoch, { text, since: performance.now() });
  }

  /** A deletion may be in force sooner than what was written before it: only what was written so long ago counts. */
  isNeedless(epoch: bigint, { text, says }: StandingFence, plan: PlannedFence, settledMillis: number): boolean {
    const taken = this.#taken.get(epoch);
    if (taken === undefined || taken.text !== text || taken.since === null) return false;
    return performance.now() - taken.since > settledMillis && supersedes(plan.says, plan.kept, says);
  }
}
