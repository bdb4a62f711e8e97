import type { AuditEventType } from '../domain/audit-event.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Grant } from '../domain/grant.ts';
import { type ApprovalId, wireId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { Caller } from '../identity/types.ts';
import {
  type Approval,
  type ApprovalFilter,
  findApproval,
  listApprovals as findApprovals,
} from '../store/approvals.ts';
import type { Queryable } from '../store/database.ts';
import { type Deciding, findDeciding } from '../store/decisions.ts';
import { findAnyGrant, findAnyGrants } from '../store/grants.ts';
import { listParties, type TaskParty } from '../store/parties.ts';
import { findTask, findTasks } from '../store/tasks.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';
import { isTargetInScope, requireRole } from './operator-scope.ts';

/** An approval with the task and the grant that it is about. */
export interface HeldApproval {
  readonly approval: Approval;
  readonly task: Task;
  readonly grant: Grant;
}

/** All that whoever decides must know. */
export interface ShownApproval extends HeldApproval {
  readonly decision: Deciding;
  /** Of the tasks above its own, the nearest first. */
  readonly above: readonly TaskParty[];
}

/** @throws MayflyError `not_found` */
export async function holdApproval(db: Queryable, id: ApprovalId): Promise<HeldApproval> {
  const approval = await findApproval(db, id);
  if (approval === undefined) throw new MayflyError('not_found');
  const task = await findTask(db, approval.taskId);
  const read = await findAnyGrant(db, approval.grantId, null);
  if (task === undefined || read === undefined) throw new MayflyError('internal');
  return { approval, task, grant: read.grant };
}

/** @throws MayflyError `not_found` */
export async function showApproval(db: Queryable, id: ApprovalId): Promise<ShownApproval> {
  const approval = await findApproval(db, id);
  const [shown] = approval === undefined ? [] : await showAll(db, [approval]);
  if (shown === undefined) throw new MayflyError('not_found');
  return shown;
}

/** In their order. */
async function showAll(db: Queryable, approvals: readonly Approval[]): Promise<ShownApproval[]> {
  const [tasks, grants, decisions] = await Promise.all([
    findTasks(db, [...new Set(approvals.map(({ taskId }) => taskId))]),
    findAnyGrants(
      db,
      approvals.map(({ grantId }) => grantId),
    ),
    findDeciding(
      db,
      approvals.map(({ decisionId }) => decisionId),
    ),
  ]);
  const shown: ShownApproval[] = [];
  for (const approval of approvals) {
    const task = tasks.find(({ id }) => id === approval.taskId);
    const read = grants.find(({ grant }) => grant.id === approval.grantId);
    const decision = decisions.get(approval.decisionId);
    if (task === undefined || read === undefined || decision === undefined) throw new MayflyError('internal');
    const above = task.parentId === null ? [] : await listParties(db, task.parentId);
    shown.push({ approval, task, grant: read.grant, decision, above });
  }
  return shown;
}

/** @throws MayflyError `operator_only`, `not_found` */
export async function readApproval(deps: BrokerDeps, caller: Caller, id: ApprovalId): Promise<ShownApproval> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const shown = await showApproval(deps.db, id);
  if (!isTargetInScope(scope, shown.approval.target)) throw new MayflyError('not_found');
  return shown;
}

/** A page of the approvals in the caller's scope, the latest first. */
export async function listApprovals(
  deps: BrokerDeps,
  caller: Caller,
  filter: ApprovalFilter,
  before: ApprovalId | null,
  limit: number,
): Promise<{ readonly items: readonly ShownApproval[]; readonly next: ApprovalId | undefined }> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const found = await findApprovals(deps.db, filter, scope && [...scope], before, limit + 1);
  const items = await showAll(deps.db, found.slice(0, limit));
  return { items, next: found.length > limit ? items.at(-1)?.approval.id : undefined };
}

export function approvalEvent(
  type: Extract<AuditEventType, `approval.${string}`>,
  deps: Pick<BrokerDeps, 'catalog'>,
  { approval, task, grant }: HeldApproval,
  context: Pick<CallContext, 'requestId'>,
  payload: Readonly<Record<string, unknown>>,
  decision: 'permit' | 'deny',
) {
  return grantEvent(type, task, { ...grant, decisionId: approval.decisionId }, digestInForce(deps.catalog), context, {
    decision,
    payload: { approval_id: wireId('apr', approval.id), groups: approval.groups, ...payload },
  });
}
