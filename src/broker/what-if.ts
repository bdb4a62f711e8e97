import type { CheckedCatalog } from '../catalog/check.ts';
import { type CatalogDiff, diffCatalogs } from '../catalog/diff.ts';
import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Caller } from '../identity/types.ts';
import type { Queryable } from '../store/database.ts';
import type { SuspendedBy } from '../store/suspensions.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { type ForeseenDecisions, foreseeDecisions } from './foresee-decisions.ts';
import { type Foreseen, foreseeDrift } from './foresee-drift.ts';
import { leftSuspended } from './left-suspended.ts';
import { requireEverywhere, requireRole } from './operator-scope.ts';

/** What a catalog would change, before it is applied. */
export interface WhatIf {
  readonly diff: CatalogDiff;
  /** Living grants that would end. */
  readonly drift: Foreseen;
  /** The last day's decisions, decided again. */
  readonly decisions: ForeseenDecisions;
  /** Tasks that would stay suspended until an operator resumes them, since their source would not be heard any more. */
  readonly leftSuspended: readonly SuspendedBy[];
}

/** Reads the store and changes nothing. @param active The catalog in force; null: none yet. */
export async function whatIf(
  db: Queryable,
  active: Catalog | null,
  next: Catalog,
  signal?: AbortSignal,
): Promise<WhatIf> {
  return {
    diff: diffCatalogs(active, next),
    drift: await foreseeDrift(db, next, signal),
    decisions: await foreseeDecisions(db, active, next, signal),
    leftSuspended: await leftSuspended(db, next),
  };
}

/**
 * Whether these files are a valid catalog. Reads nothing else.
 * @throws MayflyError `operator_only` unless the role holds everywhere (it costs a core while it lasts), `comparison_running`
 */
export async function checkProposal(
  deps: BrokerDeps,
  caller: Caller,
  files: Readonly<Record<string, string>>,
): Promise<CheckedCatalog> {
  requireEverywhere(requireRole(deps, caller, 'operator'));
  return await deps.proposals.turn.run(async () => deps.proposals.check(files));
}

/**
 * What this catalog would change.
 * @throws MayflyError `operator_only` unless the role holds everywhere, `catalog_invalid`, `comparison_running`
 */
export async function diffProposal(
  deps: BrokerDeps,
  caller: Caller,
  files: Readonly<Record<string, string>>,
  { gone }: CallContext,
): Promise<WhatIf> {
  requireEverywhere(requireRole(deps, caller, 'operator'));
  return await deps.proposals.turn.run(async () => {
    const { catalog } = deps.catalog.current();
    return await whatIf(deps.db, catalog, validated(deps.proposals.check(files)), gone);
  });
}

/** @throws MayflyError `catalog_invalid` with every fault. */
export function validated({ catalog, faults }: CheckedCatalog): Catalog {
  if (catalog === null) throw new MayflyError('catalog_invalid', undefined, { errors: faults });
  return catalog;
}
