import type { ActiveRevision } from '../catalog/active.ts';
import { MayflyError } from '../domain/errors.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import type { Transaction } from '../store/database.ts';
import type { BrokerDeps } from './deps.ts';

class StaleRevision extends Error {}

/** Throws when the store says that another revision is active than the one in hand. */
export function requireRevision(active: ActiveRevision, number: number | null): void {
  if (number !== active.number) throw new StaleRevision();
}

/**
 * Runs `work` with the active revision; `sameRevision`, called under the catalog's lock, makes sure that it still is. A replica
 * that lags behind an apply catches up and starts over, so no answer mixes two revisions or comes from an old one.
 */
export async function withActiveRevision<T>(
  deps: Pick<BrokerDeps, 'catalog'>,
  work: (active: ActiveRevision, sameRevision: (tx: Transaction) => Promise<void>) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; attempt < 3; attempt++) {
    const active = deps.catalog.current();
    try {
      return await work(active, async (tx) => requireRevision(active, await findActiveRevisionNumber(tx)));
    } catch (error) {
      if (!(error instanceof StaleRevision)) throw error;
      await deps.catalog.refresh();
    }
  }
  throw new MayflyError('not_ready', 'The active catalog can not be loaded here.');
}
