import { MayflyError } from '../domain/errors.ts';
import type { Caller } from '../identity/types.ts';
import { type AppliedRevision, readActiveRevision } from '../store/catalog-revisions.ts';
import { type DriftSeen, readDrift } from '../store/drift.ts';
import type { BrokerDeps } from './deps.ts';
import { requireRole } from './operator-scope.ts';

/** The active revision, and how far the living grants are decided by it. The counts are of all targets. */
export async function readCatalog(
  deps: BrokerDeps,
  caller: Caller,
): Promise<{ readonly revision: AppliedRevision; readonly drift: DriftSeen }> {
  requireRole(deps, caller, 'viewer');
  const revision = await readActiveRevision(deps.db);
  if (revision === undefined) throw new MayflyError('not_ready', 'No catalog is active yet.');
  return { revision, drift: await readDrift(deps.db) };
}
