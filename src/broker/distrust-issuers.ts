import type { ActiveRevision } from '../catalog/active.ts';
import { MayflyError } from '../domain/errors.ts';
import { enforcementOf, readActiveRevision } from '../store/catalog-revisions.ts';
import { findTasksOfOthers } from '../store/drift.ts';
import type { BrokerDeps } from './deps.ts';
import { endTree } from './end-task.ts';

const TREES = 100;

/** Revokes the tasks of issuers that the catalog does not trust any more, whole trees, whether they hold anything or not. Answers how many. */
export async function distrustIssuers(
  deps: Pick<BrokerDeps, 'db' | 'catalog' | 'alarms'>,
  active: ActiveRevision,
): Promise<number> {
  const { taskIssuers, tokenIssuers } = active.catalog.trust;
  const trusted = [...taskIssuers, ...tokenIssuers].map(({ issuer }) => issuer);
  const payload = { because: 'issuer_distrusted', revision: active.number };
  if ((await readActiveRevision(deps.db))?.enforce === 'report') return 0;
  let revoked = 0;
  for (;;) {
    const roots = await findTasksOfOthers(deps.db, trusted, TREES);
    for (const id of roots) {
      await endTree(deps, id, id, 'revoked', 'drift', { requestId: 'drift-sweep' }, payload, async (tx) => {
        // Another revision may trust them again.
        if ((await enforcementOf(tx, active.number)) !== 'revoke') throw new MayflyError('catalog_changed');
      });
      revoked += 1;
    }
    if (roots.length < TREES) return revoked;
  }
}
