import { randomUUID } from 'node:crypto';
import type { Beat, Holder } from '../../../src/provider.ts';

/** One identity in the system. Times in milliseconds, by the system's clock. */
interface Identity {
  readonly handle: string;
  readonly grantId: string;
  readonly installation: string;
  readonly issuedAt: number;
  readonly endsAt: number;
}

/** The whole fence of a system that has one, like an inline policy of a role: always written at once. */
export interface FenceDocument {
  readonly generation: number;
  /** What was issued before this and is not in `live` is refused. */
  readonly cutBefore: number;
  readonly live: readonly string[];
  /** Handles that are refused, each with the time until which it must be. */
  readonly denied: Readonly<Record<string, number>>;
}

/** A change that everybody sees from `from` on. */
interface Seen<T> {
  readonly from: number;
  readonly value: T;
}

/**
 * A system with identities in memory. It knows nothing of the broker: what it accepts is decided here alone, so that a test can
 * ask what holds, whatever was reported.
 */
export class SyntheticSystem {
  readonly incarnation = randomUUID();
  /** How long a fence takes to be seen everywhere. Milliseconds. */
  propagationMillis = 0;
  #holder: Holder | undefined;
  readonly #now: () => number;
  readonly #identities = new Map<string, Identity>();
  /** Handles that are refused from then on, made or not: a late mint runs into them. */
  readonly #cuts = new Map<string, number>();
  /** By name. A document that was taken away is null. */
  readonly #documents = new Map<string, Seen<FenceDocument | null>[]>();

  constructor(now: () => number) {
    this.#now = now;
  }

  /** The record of its holder, once the beat is written: of nobody, or of this tenure with an earlier beat. */
  hold(installation: string, beat?: Beat): Holder {
    const none: Holder = { installation, epoch: 1, store: null, tenure: null, beat: 0 };
    const { tenure, beat: last } = this.#holder ?? none;
    if (beat !== undefined && (tenure === null || (tenure === beat.tenure && last < beat.beat)))
      this.#holder = { installation, epoch: 1, ...beat };
    return this.#holder ?? none;
  }

  /** @returns why not, or undefined when it was made. */
  make(identity: Omit<Identity, 'issuedAt'>, mintBy: number): 'fenced' | 'too_late' | undefined {
    if (this.#now() > mintBy) return 'too_late';
    if (this.#cuts.has(identity.handle)) return 'fenced';
    this.#identities.set(identity.handle, { ...identity, issuedAt: this.#now() });
    return undefined;
  }

  find(handle: string): Identity | undefined {
    return this.#identities.get(handle);
  }

  /** Whether who holds the credential gets in now. */
  accepts(handle: string): boolean {
    const found = this.#identities.get(handle);
    return found !== undefined && this.#now() < found.endsAt && !this.refuses(handle, found.issuedAt);
  }

  /** Whether a fence that is seen by now refuses the handle, were it issued then. */
  refuses(handle: string, issuedAt = this.#now()): boolean {
    const cut = this.#cuts.get(handle);
    if (cut !== undefined && cut <= this.#now()) return true;
    return this.documents().some(
      ({ cutBefore, live, denied }) => handle in denied || (issuedAt < cutBefore && !live.includes(handle)),
    );
  }

  /** Leaves a tombstone, whether there is such an identity or not. */
  cut(handle: string): void {
    if (!this.#cuts.has(handle)) this.#cuts.set(handle, this.#now() + this.propagationMillis);
  }

  /** As a restored backup has it: the cut is forgotten. */
  forgetCut(handle: string): void {
    this.#cuts.delete(handle);
  }

  /** When its cut is seen everywhere. */
  cutAt(handle: string): number | undefined {
    return this.#cuts.get(handle);
  }

  remove(handle: string): void {
    this.#identities.delete(handle);
  }

  /** The documents that are seen by now. */
  documents(): FenceDocument[] {
    return [...this.#documents.values()].flatMap((seen) => {
      const document = seen.findLast(({ from }) => from <= this.#now())?.value;
      return document === null || document === undefined ? [] : [document];
    });
  }

  /** The documents as they were written last, seen or not. */
  written(): ReadonlyMap<string, FenceDocument> {
    return new Map(
      [...this.#documents].flatMap(([name, seen]) => {
        const document = seen.at(-1)?.value;
        return document === null || document === undefined ? [] : [[name, document] as const];
      }),
    );
  }

  /** Puts a document in place of the one of that name, whatever stood there: there is no compare-and-set. */
  write(name: string, document: FenceDocument | null): void {
    const seen = this.#documents.get(name) ?? [];
    this.#documents.set(name, [...seen, { from: this.#now() + this.propagationMillis, value: document }]);
  }

  all(): readonly Identity[] {
    return [...this.#identities.values()];
  }
}
