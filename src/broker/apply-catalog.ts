import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import {
  type AppliedRevision,
  findActiveRevisionNumber,
  findRevision,
  insertActiveRevision,
} from '../store/catalog-revisions.ts';
import type { Database } from '../store/database.ts';

export interface ApplyDeps {
  readonly db: Database;
  readonly published: () => Promise<void>;
}

/**
 * Makes a checked catalog the active revision, whole, in one transaction. Births wait for it and then see it.
 * @param expected The active revision that the caller looked at, or null for "none"; undefined: whatever it is.
 * @returns null when exactly this catalog is active already.
 * @throws MayflyError `catalog_changed` when another revision became active meanwhile.
 */
export async function applyCatalog(
  deps: ApplyDeps,
  catalog: Catalog,
  by: string,
  requestId: string,
  expected?: number | null,
): Promise<AppliedRevision | null> {
  const applied = await deps.db.transaction({ catalog: 'exclusive' }, async (tx) => {
    const before = await findActiveRevisionNumber(tx);
    if (expected !== undefined && before !== expected) throw new MayflyError('catalog_changed');
    const active = before === null ? undefined : await findRevision(tx, before);
    if (active?.digest === catalog.digest) return null;
    const revision = await insertActiveRevision(tx, catalog.digest, catalog.files, by);
    tx.record({
      type: 'catalog.applied',
      agent: 'none',
      subject: by,
      resource: 'catalog',
      action: 'apply',
      decision: 'none',
      correlationId: requestId,
      posture: 'unknown',
      cause: 'none',
      taskId: null,
      grantId: null,
      decisionId: null,
      txn: null,
      policyDigest: catalog.digest,
      payload: { revision: revision.number, before },
    });
    step('apply.before');
    return revision;
  });
  step('apply.after');
  if (applied === null) return null;
  step('publish.before');
  await deps.published();
  step('publish.after');
  return applied;
}
