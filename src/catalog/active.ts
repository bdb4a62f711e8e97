import { MayflyError } from '../domain/errors.ts';
import type { PolicyEngine } from '../policy/types.ts';
import type { Catalog, TargetDefinition } from './types.ts';

/** The revision that answers now: catalog, policy and number swapped together, so that no decision mixes two. */
export interface ActiveRevision {
  readonly number: number;
  readonly catalog: Catalog;
  readonly policy: PolicyEngine;
}

export interface ActiveCatalogOptions {
  readonly readActiveNumber: () => Promise<number | null>;
  readonly readFiles: (number: number) => Promise<Readonly<Record<string, string>> | undefined>;
  readonly load: (files: Readonly<Record<string, string>>) => Catalog;
  /** Whether a revision that is active in the store may answer. Rejects where it may not. */
  readonly vouch?: (number: number, catalog: Catalog) => Promise<void>;
  readonly createPolicy: (catalog: Catalog) => PolicyEngine & { close(): void };
  readonly onChange: (active: ActiveRevision) => void;
  readonly onError: (error: unknown) => void;
}

/** Earlier revisions kept in memory; any other is read again when it is asked for. */
const OLDER_KEPT = 8;

/** Follows the active revision. A revision that can not be loaded leaves the one before in place and cries. */
export class ActiveCatalog {
  readonly #options: ActiveCatalogOptions;
  readonly #older = new Map<number, Catalog>();
  #active: (ActiveRevision & { policy: PolicyEngine & { close(): void } }) | undefined;
  #refreshing: Promise<void> | undefined;
  #again = false;

  constructor(options: ActiveCatalogOptions) {
    this.#options = options;
  }

  /** @throws MayflyError `not_ready` before the first revision. */
  current(): ActiveRevision {
    if (this.#active === undefined) throw new MayflyError('not_ready', 'No catalog is active yet.');
    return this.#active;
  }

  get ready(): boolean {
    return this.#active !== undefined;
  }

  /** Looks at the store and swaps if another revision is active there. Never throws; runs once at a time. */
  async refresh(): Promise<void> {
    if (this.#refreshing !== undefined) {
      this.#again = true;
      return this.#refreshing;
    }
    this.#refreshing = (async () => {
      do {
        this.#again = false;
        await this.#swap();
      } while (this.#again);
    })()
      .catch(this.#options.onError)
      .finally(() => {
        this.#refreshing = undefined;
      });
    return this.#refreshing;
  }

  /**
   * A target's definition for ending a grant: the active one, or the one of the revision that last decided the grant, if the
   * target was dropped since or `asGranted` asks for it.
   */
  async targetAt(name: string, revision: number, asGranted: boolean): Promise<TargetDefinition> {
    const active = this.#active?.catalog.targets.get(name);
    if (active !== undefined && (!asGranted || revision === this.#active?.number)) return active;
    const older = this.#older.get(revision) ?? (await this.#load(revision));
    this.#remember(revision, older);
    const definition = older.targets.get(name);
    if (definition === undefined && active !== undefined) return active;
    if (definition === undefined) throw new Error(`Revision ${revision} has no target ${name}.`);
    return definition;
  }

  close(): void {
    this.#active?.policy.close();
    this.#active = undefined;
  }

  async #swap(): Promise<void> {
    const number = await this.#options.readActiveNumber();
    if (number === null || number === this.#active?.number) return;
    const catalog = await this.#load(number);
    await this.#options.vouch?.(number, catalog);
    const policy = this.#options.createPolicy(catalog);
    const before = this.#active;
    this.#active = { number, catalog, policy };
    if (before !== undefined) this.#remember(before.number, before.catalog);
    before?.policy.close();
    this.#options.onChange(this.#active);
  }

  #remember(number: number, catalog: Catalog): void {
    this.#older.set(number, catalog);
    const [oldest] = this.#older.keys();
    if (this.#older.size > OLDER_KEPT && oldest !== undefined) this.#older.delete(oldest);
  }

  async #load(number: number): Promise<Catalog> {
    const files = await this.#options.readFiles(number);
    if (files === undefined) throw new Error(`Revision ${number} is not in the store.`);
    return this.#options.load(files);
  }
}
