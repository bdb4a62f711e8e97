import { MayflyError } from '../domain/errors.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { markKillsConfirmed } from '../store/kept-kills.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { requireRole } from './operator-scope.ts';

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
  const { operator, scope } = requireRole(deps, caller, 'operator');
  if (scope !== null) throw new MayflyError('operator_only', 'This takes an operator whose role holds everywhere.');
  await deps.db.transaction({ kill: 'exclusive' }, async (tx) => {
    if (!(await markKillsConfirmed(tx))) return;
    tx.record(
      operatorEvent('kill.confirmed', deps.catalog, context, operator, { resource: 'all', payload: { reason } }),
    );
    step('confirm-kills.before');
  });
  step('confirm-kills.after');
}
