import { MayflyError } from '../domain/errors.ts';
import type { Found, KeySet, KeySource } from './key-source.ts';

/** Younger than this, a set is used as it is, unless its publisher says how long. */
export const FRESH_MS = 5 * 60_000;
/** While its source is down a set is believed this long after it was last fetched, and no longer. */
export const USABLE_MS = 60 * 60_000;
/** Unknown kids, however many, cause one fetch in this time. A key that was just rotated in may be unknown as long. */
export const UNKNOWN_KID_COOLDOWN_MS = 30_000;
/** After a fetch that failed nobody asks again for this long. */
export const RETRY_AFTER_FAILURE_MS = 2_000;

export interface RemoteKeysOptions {
  /** The document's text. Rejects when it cannot be had. */
  readonly read: () => Promise<string>;
  /** The keys behind the text. Throws when it is no key set. */
  readonly vet: (text: string) => KeySet;
  /** Monotonic milliseconds; only differences count. */
  readonly clock: () => number;
  readonly fetched: () => void;
  readonly failed: (reason: unknown) => void;
}

/**
 * The keys of one source by URL. Fetched when first needed and looked at again in use, never by a timer: a source
 * that nobody uses is not asked. All who wait share one fetch.
 */
export class RemoteKeys implements KeySource {
  readonly #options: RemoteKeysOptions;
  #set: KeySet | undefined;
  #text = '';
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #failedAt = Number.NEGATIVE_INFINITY;
  #refetchedAt = Number.NEGATIVE_INFINITY;
  /** The last attempt failed: what is known may be out of date. */
  #down = false;
  #underWay: Promise<void> | undefined;

  constructor(options: RemoteKeysOptions) {
    this.#options = options;
  }

  /** The set in force, if it may still be believed; from five minutes on a fetch in the background begins. */
  current(): KeySet | undefined {
    const age = this.#since(this.#fetchedAt);
    if (age >= USABLE_MS) return undefined;
    if (age >= (this.#set?.freshMs ?? FRESH_MS) && this.#mayAttempt()) void this.#attempt();
    return this.#set;
  }

  /** @throws MayflyError `keys_unavailable` when no set may be believed, or what is unknown cannot be looked up now. */
  async search<T>(look: (set: KeySet) => T | undefined): Promise<Found<T> | undefined> {
    const known = this.#isForgotten() ? undefined : this.current();
    const set = known ?? (await this.#load());
    const found = look(set);
    if (found !== undefined) return { set, found };
    // A set that was fetched for this very question needs no second look.
    if (known) return await this.#searchAfterRefetch(look);
    if (this.#down) throw unavailable();
    return undefined;
  }

  async ready(): Promise<boolean> {
    if (!this.current() && this.#mayAttempt()) await this.#attempt();
    return this.current() !== undefined;
  }

  /** Nobody used it for long: the look in the background that keeps it fresh was never begun, and a key may be withdrawn since. */
  #isForgotten(): boolean {
    return !this.#down && this.#since(this.#fetchedAt) >= 2 * (this.#set?.freshMs ?? FRESH_MS);
  }

  async #searchAfterRefetch<T>(look: (set: KeySet) => T | undefined): Promise<Found<T> | undefined> {
    if (this.#underWay) {
      await this.#underWay;
    } else if (this.#since(this.#refetchedAt) >= UNKNOWN_KID_COOLDOWN_MS && this.#mayAttempt()) {
      await this.#attempt();
      // A failure does not use up the cooldown: the next look is two seconds away, not thirty.
      if (!this.#down) this.#refetchedAt = this.#options.clock();
    }
    const set = this.current();
    const found = set && look(set);
    if (set && found !== undefined) return { set, found };
    if (this.#down) throw unavailable();
    return undefined;
  }

  async #load(): Promise<KeySet> {
    if (this.#mayAttempt()) await this.#attempt();
    const set = this.current();
    if (!set) throw unavailable();
    return set;
  }

  #mayAttempt(): boolean {
    return this.#underWay !== undefined || this.#since(this.#failedAt) >= RETRY_AFTER_FAILURE_MS;
  }

  /** Joins the fetch under way or begins one. Never rejects: how it went stands in the fields. */
  #attempt(): Promise<void> {
    this.#underWay ??= this.#fetch().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  async #fetch(): Promise<void> {
    const startedAt = this.#options.clock();
    try {
      const text = await this.#options.read();
      // The same text keeps the same set, and with it every token that was believed by it.
      if (!this.#set || text !== this.#text) this.#set = this.#options.vet(text);
      this.#text = text;
      this.#fetchedAt = startedAt;
      this.#down = false;
      this.#options.fetched();
    } catch (reason) {
      this.#failedAt = this.#options.clock();
      this.#down = true;
      this.#options.failed(reason);
    }
  }

  #since(moment: number): number {
    return this.#options.clock() - moment;
  }
}

function unavailable(): MayflyError {
  return new MayflyError('keys_unavailable', undefined, { retryAfterSeconds: RETRY_AFTER_FAILURE_MS / 1000 });
}
