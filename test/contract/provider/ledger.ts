import type { Ref } from '../../../src/provider.ts';
import type { Tested } from './live.ts';

/** One that was minted, or may have been. */
interface Entry {
  readonly ref: Ref;
  readonly entitlement: Tested;
  readonly live: boolean;
  /** An administrator has looked, and found nothing of it. */
  readonly gone: boolean;
}

/** What was minted, or may have been, for our installation: what lives, and all that ever was. */
export class Ledger {
  readonly #entries = new Map<string, Entry>();

  /** From here on it may be there. */
  note(ref: Ref, entitlement: Tested): void {
    this.#entries.set(ref.handle, { ref, entitlement, live: true, gone: false });
  }

  ended(refs: readonly Ref[]): void {
    for (const { handle } of refs) {
      const entry = this.#entries.get(handle);
      if (entry !== undefined) this.#entries.set(handle, { ...entry, live: false });
    }
  }

  /** Nothing of it was found. */
  seenGone(handle: string): void {
    const entry = this.#entries.get(handle);
    if (entry !== undefined) this.#entries.set(handle, { ...entry, gone: true });
  }

  get live(): readonly Ref[] {
    return [...this.#entries.values()].filter(({ live }) => live).map(({ ref }) => ref);
  }

  get all(): readonly Entry[] {
    return [...this.#entries.values()];
  }
}
