import { MayflyError } from '../domain/errors.ts';
import { type ApprovalId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { addWord, type Approval, lockApproval, type Word } from '../store/approvals.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { birthLocks } from '../store/locks.ts';
import { listParties } from '../store/parties.ts';
import { requireOther } from './approver.ts';
import { approvalEvent, holdApproval, type ShownApproval, showApproval } from './approvals.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { checkAlive } from './life.ts';
import { requireInScope, requireRole } from './operator-scope.ts';
import { requireRevision, revisionOf } from './revision.ts';

/**
 * Approves or denies what waits for it, once. Where groups are several it is approved when somebody of each has said so, at the same
 * moment or not; one person counts for all of theirs.
 * @throws MayflyError `operator_only`, `not_found`, `approver_not_in_group`, `approver_is_party`, `approver_unmapped`, `approval_over`, `task_ended`
 */
export async function decideApproval(
  deps: BrokerDeps,
  caller: Caller,
  id: ApprovalId,
  decision: 'approve' | 'deny',
  reason: string,
  context: CallContext,
): Promise<ShownApproval> {
  const active = revisionOf(deps, caller);
  const { operator, scope } = requireRole(deps, caller, 'approver');
  const found = await holdApproval(deps.db, id);
  requireInScope(scope, found.approval.target);
  groupsFor(caller, found.approval.groups);
  const { task } = found;
  await deps.db.transaction(birthLocks(task.rootId), async (tx) => {
    requireRevision(active, await findActiveRevisionNumber(tx));
    await lockApproval(tx, id);
    const { approval, task: now } = await holdApproval(tx, id);
    if (approval.state !== 'pending' || approval.expiresAt <= tx.now) throw over(approval, tx.now);
    // A second yes of the same group adds nothing. A no always counts.
    const groups = groupsFor(caller, decision === 'approve' ? missing(approval) : approval.groups);
    // To deny takes nothing from anybody else: also whoever asked may.
    if (decision === 'approve') {
      checkAlive(now, tx.now);
      requireOther(active.catalog.trust, operator, await listParties(tx, now.id));
    }
    const word: Word = { by: operator, groups, at: tx.now.toISOString(), decision, reason };
    const state = stateAfter(approval, word);
    const unused = Math.min(tx.now.getTime() + deps.approvals.unusedSeconds * 1000, now.notAfter.getTime());
    const after = await addWord(tx, id, state, word, new Date(unused));
    if (after === undefined) throw new MayflyError('internal');
    const payload = {
      ...{ by: operator, as: groups, reason, digest: approval.digest.toString('hex') },
      ...(state === 'pending' ? { still_needed: missing(after) } : {}),
      ...(state === 'approved' ? { expires_at: after.expiresAt.toISOString() } : {}),
    };
    const type = decision === 'approve' ? 'approval.approved' : 'approval.denied';
    tx.record(approvalEvent(type, deps, found, context, payload, decision === 'approve' ? 'permit' : 'deny'));
    tx.changed(task.id);
    step('decide-approval.before');
  });
  step('decide-approval.after');
  return await showApproval(deps.db, id);
}

/** What it came to instead. @param now Null: by its state alone. */
export function over(approval: Approval, now: Date | null): MayflyError {
  const { id, state, because, expiresAt } = approval;
  // Its time may be over, and the sweeper just has not said so yet.
  const isOpen = state === 'pending' || state === 'approved';
  const is = isOpen && now !== null && expiresAt <= now ? 'lapsed' : state;
  return new MayflyError('approval_over', undefined, {
    members: { approval_id: wireId('apr', id), state: is, ...(because === null ? {} : { because }) },
  });
}

/** Those of the groups that the caller speaks for. @throws MayflyError `approver_not_in_group` */
function groupsFor(caller: Caller, groups: readonly string[]): readonly string[] {
  const own = caller.kind === 'operator' ? (caller.groups ?? []) : [];
  const spokenFor = groups.filter((group) => own.includes(group));
  if (spokenFor.length === 0) throw new MayflyError('approver_not_in_group', undefined, { members: { groups } });
  return spokenFor;
}

function stateAfter(approval: Approval, word: Word): 'pending' | 'approved' | 'denied' {
  if (word.decision === 'deny') return 'denied';
  return missing({ ...approval, words: [...approval.words, word] }).length === 0 ? 'approved' : 'pending';
}

/** Groups of which nobody has approved it yet. */
export function missing({ groups, words }: Pick<Approval, 'groups' | 'words'>): readonly string[] {
  const said = new Set(words.flatMap((word) => (word.decision === 'approve' ? word.groups : [])));
  return groups.filter((group) => !said.has(group));
}
