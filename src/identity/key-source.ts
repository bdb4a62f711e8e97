import type { VettedKey } from './vet-keys.ts';

/** A key set as it stood at one moment. Another content is another object. */
export interface KeySet {
  readonly keys: ReadonlyMap<string, VettedKey>;
  /** How long it is used as it is, where its publisher says so, in milliseconds. */
  readonly freshMs?: number | undefined;
}

export interface FoundKey {
  readonly set: KeySet;
  readonly key: VettedKey;
}

/** Where the keys of one issuer come from. */
export interface KeySource {
  /** The set in force, or undefined when none may be believed now. Never waits. */
  current(): KeySet | undefined;
  /**
   * The key of that name; undefined when the issuer does not publish it.
   * @throws MayflyError `keys_unavailable` (503, with Retry-After) when that cannot be said now.
   */
  find(kid: string): Promise<FoundKey | undefined>;
  /** Tries to have keys; says whether there are any to believe. */
  ready(): Promise<boolean>;
}
