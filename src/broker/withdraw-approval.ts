import { MayflyError } from '../domain/errors.ts';
import { type ApprovalId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { type Approval, type Word, withdrawApproval as withdraw } from '../store/approvals.ts';
import { endGrants } from '../store/grants.ts';
import { approvalEvent, holdApproval, type ShownApproval, showApproval } from './approvals.ts';
import { over } from './decide-approval.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';
import { requireInScope, requireRole } from './operator-scope.ts';

/**
 * Takes an approval back. What was not collected yet is denied; what lives of it ends as drift, in the same transaction. It only takes
 * away: any approver with the target in scope may do it, by whatever catalog there is.
 * @throws MayflyError `operator_only`, `not_found`, `approval_pending`: it is denied instead; `approval_over`: there is none to take back, or what came of it has ended.
 */
export async function withdrawApproval(
  deps: BrokerDeps,
  caller: Caller,
  id: ApprovalId,
  reason: string,
  context: CallContext,
): Promise<ShownApproval> {
  const { operator, scope } = requireRole(deps, caller, 'approver');
  const found = await holdApproval(deps.db, id);
  requireInScope(scope, found.approval.target);
  const { task, grant } = found;
  const withdrawn = await deps.db.transaction({}, async (tx) => {
    const word: Word = { by: operator, groups: [], at: tx.now.toISOString(), decision: 'withdraw', reason };
    const after = await withdraw(tx, id, word);
    if (after === undefined) throw notWithdrawn((await holdApproval(tx, id)).approval, tx.now);
    const ended = await endGrants(tx, { grantIds: [grant.id] }, 'drift');
    tx.record(approvalEvent('approval.withdrawn', deps, found, context, { by: operator, reason }, 'deny'));
    for (const { revocation } of ended) {
      const payload = {
        because: 'approval_withdrawn',
        approval_id: wireId('apr', id),
        revocation_id: wireId('rev', revocation.id),
      };
      const more = { cause: 'drift', payload };
      tx.record(grantEvent('grant.ended', task, grant, digestInForce(deps.catalog), context, more));
    }
    tx.changed(task.id);
    step('withdraw-approval.before');
    return ended;
  });
  step('withdraw-approval.after');
  for (const { grant: ended } of withdrawn) deps.alarms.now(ended.target);
  return await showApproval(deps.db, id);
}

function notWithdrawn(approval: Approval, now: Date): MayflyError {
  if (approval.state !== 'pending' || approval.expiresAt <= now) return over(approval, now);
  const members = { approval_id: wireId('apr', approval.id), state: 'pending' };
  return new MayflyError('approval_pending', 'Nothing is approved yet that could be withdrawn: deny it instead.', {
    members,
  });
}
