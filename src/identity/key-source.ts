import type { Certificate } from './certificates/certificate.ts';
import type { VettedKey } from './vet-keys.ts';

/** A key set as it stood at one moment. Another content is another object. */
export interface KeySet {
  readonly keys: ReadonlyMap<string, VettedKey>;
  /** `spiffe-x509`: the trust anchors. */
  readonly authorities?: readonly Certificate[];
  /** How long it is used as it is, where its publisher says so, in milliseconds. */
  readonly freshMs?: number | undefined;
}

export interface Found<T> {
  readonly set: KeySet;
  readonly found: T;
}

/** Where the keys of one issuer come from. */
export interface KeySource {
  /** The set in force, or undefined when none may be believed now. Never waits. */
  current(): KeySet | undefined;
  /**
   * What `look` finds in the set in force, or else in what its publisher has now; undefined when it is in neither.
   * @throws MayflyError `keys_unavailable` (503, with Retry-After) when that cannot be said now.
   */
  search<T>(look: (set: KeySet) => T | undefined): Promise<Found<T> | undefined>;
  /** Tries to have keys; says whether there are any to believe. */
  ready(): Promise<boolean>;
}
