import { changeControlFile, changeControlOf } from '../catalog/change-control.ts';
import type { ChangeControl } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Caller } from '../identity/types.ts';
import { type AppliedRevision, findRevisionFile, readActiveRevision } from '../store/catalog-revisions.ts';
import type { Queryable } from '../store/database.ts';
import { type DriftSeen, readDrift } from '../store/drift.ts';
import type { BrokerDeps } from './deps.ts';
import { requireRole } from './operator-scope.ts';

/** The catalog in force. */
export interface CatalogSeen {
  readonly revision: AppliedRevision;
  readonly changeControl: ChangeControl;
  /** How far living grants are decided by it. The counts are of all targets. */
  readonly drift: DriftSeen;
}

/** The active revision, and how far the living grants are decided by it. @throws MayflyError `operator_only`, `not_ready` */
export async function readCatalog(deps: BrokerDeps, caller: Caller): Promise<CatalogSeen> {
  requireRole(deps, caller, 'viewer');
  const seen = await seeCatalog(deps.db);
  if (seen === undefined) throw new MayflyError('not_ready', 'No catalog is active yet.');
  return seen;
}

/** Undefined: none is active yet. */
export async function seeCatalog(db: Queryable): Promise<CatalogSeen | undefined> {
  const revision = await readActiveRevision(db);
  if (revision === undefined) return undefined;
  const control = await findRevisionFile(db, revision.number, changeControlFile);
  const changeControl = changeControlOf(control === undefined ? {} : { [changeControlFile]: control });
  return { revision, changeControl, drift: await readDrift(db) };
}
