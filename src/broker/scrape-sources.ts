import { readSources } from './list-signals.ts';
import type { ActiveCatalog } from '../catalog/active.ts';
import { readApprovals } from '../store/approvals.ts';
import type { Database } from '../store/database.ts';
import { readDrift } from '../store/drift.ts';
import { glance } from '../store/glance.ts';
import { readQueue } from '../store/revocations.ts';
import { listWebhookStates } from '../store/webhooks.ts';

/** However many scrape, the store is asked about each once in so long, and a scrape waits for it no longer than this. */
const KEPT_MILLIS = 3_000;
const PATIENCE_MILLIS = 3_000;

/** What a scrape shows of the store. */
export function scrapeSources(db: Database, catalog: ActiveCatalog) {
  const kept = <T>(read: () => Promise<T>) => glance(KEPT_MILLIS, PATIENCE_MILLIS, read);
  return {
    queue: kept(() => readQueue(db)),
    drift: kept(() => readDrift(db)),
    approvals: kept(() => readApprovals(db)),
    signals: kept(() => readSources(db, catalog)),
    webhooks: kept(() => listWebhookStates(db)),
  };
}
