import type { CheckedCatalog } from '../catalog/check.ts';
import { MayflyError } from '../domain/errors.ts';
import type { CatalogKeys } from '../identity/catalog-signature.ts';

/** What it takes to judge catalogs that are not in force, and to put one in its place. */
export interface Proposals {
  /** Resolves no secret. Costs the event loop as much as loading such a catalog does. */
  readonly check: (files: Readonly<Record<string, string>>) => CheckedCatalog;
  /** One after another here: each costs a core while it lasts. */
  readonly turn: OneAtATime;
  /** Percent of what lives that an apply may end unasked. */
  readonly maxDriftShare: number;
  /** Of those who vouch for catalogs; null: nobody is asked to. */
  readonly keys: CatalogKeys | null;
  /** Tells the other replicas that another revision is active. */
  readonly published: () => Promise<void>;
}

/** Lets one thing be done at a time, and refuses the others. */
export class OneAtATime {
  #busy = false;

  /** @throws MayflyError `comparison_running` */
  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#busy) throw new MayflyError('comparison_running', undefined, { retryAfterSeconds: 5 });
    this.#busy = true;
    try {
      return await work();
    } finally {
      this.#busy = false;
    }
  }
}
