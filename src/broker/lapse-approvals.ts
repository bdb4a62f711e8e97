import type { LapsedBecause } from '../domain/approval.ts';
import { wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Transaction } from '../store/database.ts';
import { lapse, type Lapsing } from '../store/lapsing.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';

/** Lets open approvals lapse with their grants, each with its evidence. Answers how many. @param because Null: their time was over. */
export async function lapseApprovals(
  deps: Pick<BrokerDeps, 'catalog'>,
  tx: Transaction,
  which: Lapsing,
  because: LapsedBecause | null,
  context: Pick<CallContext, 'requestId'>,
): Promise<number> {
  const lapsed = await lapse(tx, which, because);
  const digest = digestInForce(deps.catalog);
  for (const { approval, was, handle, entitlement, ...task } of lapsed) {
    const { id, grantId, taskId, target, decisionId, groups } = approval;
    tx.record(
      grantEvent(
        'approval.lapsed',
        { ...task, id: taskId },
        { id: grantId, target, decisionId, handle, entitlement },
        digest,
        context,
        { cause: approval.because ?? 'none', payload: { approval_id: wireId('apr', id), groups, was } },
      ),
    );
    tx.changed(taskId);
  }
  return lapsed.length;
}

/** Those that were not decided, or not collected, in time. Every replica does it: what another has in hand is passed over. */
export async function lapseOverdueApprovals(deps: Pick<BrokerDeps, 'db' | 'catalog'>, limit: number): Promise<number> {
  const count = await deps.db.transaction({}, async (tx) => {
    const lapsed = await lapseApprovals(deps, tx, { kind: 'due', limit }, null, { requestId: 'sweeper' });
    step('lapse-approvals.before');
    return lapsed;
  });
  step('lapse-approvals.after');
  return count;
}
