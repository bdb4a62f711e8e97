import type { ActiveRevision } from '../catalog/active.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Caller } from '../identity/types.ts';
import type { BrokerDeps } from './deps.ts';

/**
 * Another revision became active than the one that this call began under. Nothing was done: begin again from the proofs, since
 * who was believed before may not be any more.
 */
class StaleRevision extends MayflyError {
  constructor() {
    super('catalog_changed', 'The catalog changed while this was asked. Ask again.', { retryAfterSeconds: 1 });
  }
}

/** @throws StaleRevision when the store says that another revision is active than the one in hand. */
export function requireRevision(active: ActiveRevision, number: number | null): void {
  if (number !== active.number) throw new StaleRevision();
}

/** The revision in hand, if it is the one that believed the caller. @throws StaleRevision */
export function revisionOf(deps: Pick<BrokerDeps, 'catalog'>, caller: Caller): ActiveRevision {
  const active = deps.catalog.current();
  if (caller.revision !== undefined) requireRevision(active, caller.revision);
  return active;
}

/** Runs a call from its proofs on, and again when the catalog changed under it: no answer mixes two revisions or comes from an old one. */
export async function underOneRevision<T>(deps: Pick<BrokerDeps, 'catalog'>, call: () => Promise<T>): Promise<T> {
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof StaleRevision)) throw error;
      await deps.catalog.refresh();
    }
  }
  throw new MayflyError('not_ready', 'The active catalog can not be loaded here.');
}
