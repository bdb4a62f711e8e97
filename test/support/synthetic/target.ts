import type { Ref } from '../../../src/provider.ts';
import { HoldPoints } from './hold-points.ts';
import { SyntheticSystem } from './system.ts';

/**
 * What a target can do about a credential: cut each by its handle; cut by one document about all of them; wait for its own end;
 * close the way to a value that was read.
 */
export type Kind = 'handles' | 'document' | 'expiry-only' | 'irrevocable';

export type Operation = 'guarantee' | 'mint' | 'fence' | 'verify' | 'reap' | 'list';

export interface Call {
  readonly refs: readonly Ref[];
  /** Does it, and answers the truth. */
  readonly honest: (refs: readonly Ref[]) => Promise<unknown>;
}

/** What a sick target does instead. */
export interface Fault {
  readonly answer: (call: Call) => Promise<unknown>;
  /** It does not end when it is told to. */
  readonly deaf?: true;
}

/** One target of the catalog: a name, and the system that stands behind it. */
export class SyntheticTarget {
  readonly kind: Kind;
  readonly holds = new HoldPoints();
  readonly faults = new Map<Operation, Fault>();
  /** Every call so far, as it came. */
  readonly calls: { readonly operation: Operation; readonly handles: readonly string[] }[] = [];
  /** How long after its cut an identity has to stand before it may be cleaned. Milliseconds. */
  reapDelayMillis = 0;
  /** Whether documents bear the epoch of their writer in their name. Without it the last one to arrive stands. */
  epochInName = true;
  /** Whether it keeps a record of its holder. */
  keepsRecord = true;
  /** Writers of the document at work, and the most that ever were. */
  writers = { now: 0, most: 0 };
  system: SyntheticSystem;
  #turned = 0;

  constructor(kind: Kind) {
    this.kind = kind;
    this.system = new SyntheticSystem(() => this.now());
  }

  /** The target's clock. Milliseconds. */
  now(): number {
    return Date.now() + this.#turned;
  }

  /** Turns its clock on. */
  turn(millis: number): void {
    this.#turned += millis;
  }

  /** Another system stands behind the name now. Answers the one that did. */
  replace(): SyntheticSystem {
    const before = this.system;
    this.system = new SyntheticSystem(() => this.now());
    return before;
  }

  count(operation: Operation): number {
    return this.calls.filter((call) => call.operation === operation).length;
  }

  /**
   * One call over the network: held at `<operation>.sent` it is under way, at `<operation>.done` it has had its effect. A caller
   * that gives up does not take back what was sent.
   */
  async call<T>(
    operation: Operation,
    refs: readonly Ref[],
    signal: AbortSignal,
    honest: (refs: readonly Ref[]) => Promise<T>,
  ): Promise<T> {
    this.calls.push({ operation, handles: refs.map(({ handle }) => handle) });
    const fault = this.faults.get(operation);
    const arrived = (async () => {
      await this.holds.pass(`${operation}.sent`);
      const answer = fault === undefined ? await honest(refs) : await fault.answer({ refs, honest });
      await this.holds.pass(`${operation}.done`);
      // A sick target answers what it likes.
      return answer as T;
    })();
    return fault?.deaf === true ? await arrived : await Promise.race([arrived, aborted(signal)]);
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const stop = () => reject(signal.reason instanceof Error ? signal.reason : new Error('aborted'));
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
  });
}
