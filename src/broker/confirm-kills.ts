import type { Caller } from '../identity/types.ts';
import { step } from '../domain/step.ts';
import { markKillsConfirmed } from '../store/kept-kills.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { requireEverywhere, requireRole } from './operator-scope.ts';

/**
 * An operator says that the kills that stand are all that shall: after the store may have forgotten some, and no replica that knew them
 * is left. Said again, it is the same.
 * @throws MayflyError `operator_only` for one whose role does not hold everywhere.
 */
export async function confirmKills(
  deps: BrokerDeps,
  caller: Caller,
  reason: string,
  context: CallContext,
): Promise<void> {
  const role = requireRole(deps, caller, 'operator');
  requireEverywhere(role);
  await confirmStanding(deps, role.operator, null, { reason }, context);
}

/** Lets what is reconciled be issued on again. @param by An operator, or the replica that knew what stood. @param since As the store said when it was read. */
export async function confirmStanding(
  deps: Pick<BrokerDeps, 'db' | 'catalog'>,
  by: string,
  since: string | null,
  payload: Readonly<Record<string, unknown>>,
  context: Pick<CallContext, 'requestId'>,
): Promise<void> {
  await deps.db.transaction({ kill: 'exclusive' }, async (tx) => {
    if (!(await markKillsConfirmed(tx, since))) return;
    tx.record(operatorEvent('kill.confirmed', deps.catalog, context, by, { resource: 'all', payload }));
    step('confirm-kills.before');
  });
  step('confirm-kills.after');
}
