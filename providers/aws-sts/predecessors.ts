import { idleMillis } from './epoch.ts';
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
 * So long after it was seen first what another broker wrote is taken over, if it has not changed: not sooner than it is of use. Of brokers that
 * come and go, as in a rolling update, each would else write all that those before it denied once more, and fill the role.
 */
const takenOverMillis = 1.8 * idleMillis;

/** So long what was left may still be written to by what is late: a signature is good for minutes. Milliseconds. */
const lateMillis = 3_600_000;

interface Left {
  readonly at: number;
  /** What was written there and is all in what is written since. */
  readonly texts: readonly string[];
}

/**
 * The epochs before ours: those that this broker gave up, and those of other brokers as they stood when it began. What they deny is taken
 * over, so that they can be taken away: of a broker that is no more nobody else does. One that has changed since is at work.
 */
export class Predecessors {
  readonly #left = new Map<bigint, Left>();
  #highest = 0n;
  /** What of them is taken over, and since when a document of ours that denies it stands. */
  readonly #taken = new Map<bigint, { readonly text: string; readonly since: number }>();
  readonly #looked = new Set<bigint>();
  /** Those of other brokers as they stood at first, and when that was. */
  #others: { readonly texts: ReadonlyMap<bigint, string>; readonly at: number } | undefined;

  /** Those that this broker gave up. */
  get left(): ReadonlySet<bigint> {
    return new Set(this.#left.keys());
  }

  /** No number up to that one is given to a new epoch: of those that stand, and those that this broker gave up. */
  highest(standing: Iterable<bigint>): bigint {
    return [...standing].reduce((most, one) => (one > most ? one : most), this.#highest);
  }

  /**
   * One that this broker writes no more. A write without an answer may still arrive.
   * @param texts What was written there with an answer: the next document denies all of it that is not past.
   */
  leave(epoch: bigint, texts: readonly string[]): void {
    const now = performance.now();
    for (const [one, { at }] of this.#left) if (now - at > lateMillis && !this.#taken.has(one)) this.#left.delete(one);
    this.#left.set(epoch, { at: now, texts });
    if (epoch > this.#highest) this.#highest = epoch;
  }

  /** It is taken away. Should it come again, it is taken over again; its number is not given to another one. */
  forget(epoch: bigint): void {
    this.#taken.delete(epoch);
    this.#looked.delete(epoch);
  }

  /** Those that are not taken over yet. Of other brokers only as they stood at first: two at work would for ever tell each other. */
  untaken(fences: Standing): Standing {
    const now = performance.now();
    this.#others ??= { texts: new Map(fences.map(([epoch, { text }]) => [epoch, text])), at: now };
    const { texts, at } = this.#others;
    return fences.filter(
      ([epoch, { text }]) =>
        !this.#isOwn(epoch, text) &&
        (this.#left.has(epoch) || (texts.get(epoch) === text && now - at > takenOverMillis)) &&
        this.#taken.get(epoch)?.text !== text,
    );
  }

  /** A document that denies all that these do stands from now on. @param fences All that stand. @param over What it took over. */
  take(fences: Standing, over: Standing): void {
    const since = performance.now();
    for (const [epoch, { text }] of over) this.#taken.set(epoch, { text, since });
    for (const [epoch, { text }] of fences)
      if (this.#isOwn(epoch, text) && this.#taken.get(epoch)?.text !== text) this.#taken.set(epoch, { text, since });
  }

  /** Whether there is any that may be needless by now, and was not looked at since. */
  areSettled(settledMillis: number): { readonly own: boolean; readonly others: boolean } {
    const now = performance.now();
    const settled = [...this.#taken].filter(([epoch, { since }]) => now - since > settledMillis && this.#isIdle(epoch));
    return {
      own: settled.some(([epoch]) => this.#left.has(epoch)),
      others: settled.some(([epoch]) => !this.#left.has(epoch) && !this.#looked.has(epoch)),
    };
  }

  /** What of others stands now though it is settled stays: its broker is at work. What is not there any more is forgotten. */
  looked(others: boolean, fences: ReadonlyMap<bigint, StandingFence>): void {
    for (const epoch of this.#taken.keys())
      if (!fences.has(epoch)) this.forget(epoch);
      else if (others) this.#looked.add(epoch);
  }

  /** A deletion may be in force sooner than what was written before it: only what was written so long ago counts. */
  isNeedless(epoch: bigint, { text, says }: StandingFence, plan: PlannedFence, settledMillis: number): boolean {
    const taken = this.#taken.get(epoch);
    if (taken === undefined || taken.text !== text) return false;
    if (performance.now() - taken.since <= settledMillis || !this.#isIdle(epoch)) return false;
    return this.#isOwn(epoch, text) || supersedes(plan.says, plan.kept, says);
  }

  /** Another broker may write to what is not ours until it was idle for `idleMillis`, and nobody to what we left. */
  #isIdle(epoch: bigint): boolean {
    if (this.#left.has(epoch)) return true;
    return this.#others !== undefined && performance.now() - this.#others.at > 2 * idleMillis;
  }

  #isOwn(epoch: bigint, text: string): boolean {
    return this.#left.get(epoch)?.texts.includes(text) ?? false;
  }
}
