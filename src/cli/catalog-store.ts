import { checkCatalog } from '../catalog/check.ts';
import type { Catalog } from '../catalog/types.ts';
import { validated } from '../broker/what-if.ts';
import type { Config } from '../config.ts';
import { findActiveRevisionNumber, findRevision, type StoredRevision } from '../store/catalog-revisions.ts';
import { Changes } from '../store/changes.ts';
import type { Database } from '../store/database.ts';
import { findInstallation } from '../store/installation.ts';
import { loadCatalog, type LoadOptions } from '../catalog/load.ts';
import { openStore } from './store.ts';

export interface StoreContext {
  readonly db: Database;
  readonly config: Config;
  readonly check: (files: Readonly<Record<string, string>>) => Catalog;
  /** What is in force; null: nothing yet. */
  readonly active: () => Promise<StoredRevision | null>;
  readonly load: (revision: StoredRevision) => Catalog;
  readonly published: () => Promise<void>;
}

/** Works on catalogs with the store itself. */
export async function onStore(work: (context: StoreContext) => Promise<void>): Promise<void> {
  const { db, url, config, providers } = await openStore();
  try {
    const installation = await findInstallation(db);
    const options: LoadOptions = { providers, allowDev: installation?.dev === true };
    await work({
      db,
      config,
      check: (files) => validated(checkCatalog(files, options)),
      active: async () => {
        const number = await findActiveRevisionNumber(db);
        return number === null ? null : ((await findRevision(db, number)) ?? null);
      },
      load: ({ files }) => loadCatalog(files, options),
      published: async () => {
        const changes = new Changes({ url, onError: () => {}, onCatalog: () => {} });
        await changes.start();
        await changes.publishCatalog();
        await changes.close();
      },
    });
  } finally {
    await db.close();
  }
}
