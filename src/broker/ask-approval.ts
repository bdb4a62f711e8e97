import { MayflyError } from '../domain/errors.ts';
import type { Grant } from '../domain/grant.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { type Approval, countApprovals, findApprovalOfGrant, insertApproval } from '../store/approvals.ts';
import type { Transaction } from '../store/database.ts';
import { insertDecision } from '../store/decisions.ts';
import { findAnyGrant, type GrantWithRevocation, insertUnminted } from '../store/grants.ts';
import { findUsedKey, type Intent, moveUsedKey, takeKey } from '../store/intents.ts';
import { issuingWithin } from '../store/issuing.ts';
import { loneBirthLocks } from '../store/locks.ts';
import { findStop } from '../store/stops.ts';
import { askable } from './askable.ts';
import { askedOf, digestOfAsked } from './asked.ts';
import { type Ask, decideGrant } from './decide-grant.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { grantEvent } from './evidence.ts';
import { killedProblem } from './kill.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { endForReplay } from './replayed-key.ts';

/** Nothing was made: it is to be approved, and then collected. */
export interface Pending {
  readonly pending: Grant;
  readonly approval: Approval;
  /** It was asked for before with the same Idempotency-Key. */
  readonly idempotencyReplayed: boolean;
}

/**
 * Writes down what is to be approved: exactly what was asked for, bound by a digest. It is decided again under the locks of a birth, so
 * that no end of its task misses it.
 */
export async function askApproval(
  deps: BrokerDeps,
  caller: WorkloadCaller,
  taskId: TaskId,
  rootId: TaskId,
  ask: Ask,
  context: CallContext,
): Promise<Pending> {
  const { active, entitlement, target, request } = ask;
  const asked = await deps.db.transaction(loneBirthLocks(rootId), async (tx) => {
    const state = askable(deps, active, caller, await issuingWithin(tx).readTask(taskId), entitlement.name);
    if ((await findStop(tx, { entitlement: entitlement.name, target: target.name })) === 'killed')
      throw killedProblem();
    const decided = decideGrant(deps, ask, state, context);
    if (!decided.permitted || decided.needs.length === 0) return undefined;
    const { intent, life, needs } = decided;
    const { task } = state;
    const repeated = await settleKey(tx, intent, {
      lapse: (id) => lapseApprovals(deps, tx, { kind: 'grant', id }, null, context),
      end: (id) => endForReplay(tx, id, task, active.catalog.digest, context, intent.grant.id),
    });
    if (!Array.isArray(repeated)) return { pending: repeated, ended: [] };
    requireRoom(deps, await countApprovals(tx, task.id), task.notAfter.getTime() - tx.now.getTime());

    const grant: Grant = { ...intent.grant, state: 'pending_approval' };
    const { params, guarantee, perCall } = grant;
    const { delivery, justification } = request;
    const exactly = askedOf(task, {
      ...{ entitlement, target, params, guarantee, delivery, justification, perCall },
      ttlSeconds: Math.floor(life.seconds),
    });
    const expiresAt = Math.min(tx.now.getTime() + deps.approvals.pendingSeconds * 1000, task.notAfter.getTime());
    const approval = {
      ...{ id: deps.ids.next('apr'), grantId: grant.id, taskId: task.id, target: target.name },
      ...{ decisionId: intent.decision.id, groups: needs, asked: exactly, digest: digestOfAsked(exactly) },
      expiresAt: new Date(expiresAt),
    };
    await insertDecision(tx, intent.decision);
    await insertUnminted(tx, grant, intent.sink, intent.mintBy);
    await insertApproval(tx, approval);
    const [made] = intent.events;
    if (made !== undefined) tx.record(made);
    const payload = {
      ...{ approval_id: wireId('apr', approval.id), groups: needs, ttl_seconds: exactly.ttl_seconds, justification },
      ...{ expires_at: approval.expiresAt.toISOString(), digest: approval.digest.toString('hex') },
    };
    const more = { action: 'issue', payload };
    tx.record(grantEvent('approval.requested', task, grant, active.catalog.digest, context, more));
    tx.changed(task.id);
    step('ask-approval.before');
    const born = { state: 'pending', words: [], requestedAt: tx.now, endedAt: null, because: null } as const;
    const pending: Waiting = { grant, approval: { ...approval, ...born } };
    return { pending, ended: repeated };
  });
  step('ask-approval.after');
  if (asked === undefined) throw new MayflyError('store_unavailable', 'The task changed while it was looked at.');
  const { pending, ended } = asked;
  for (const { grant } of ended) deps.alarms.now(grant.target);
  deps.observer.decided('issue', true, false);
  return { pending: pending.grant, approval: pending.approval, idempotencyReplayed: pending.repeated === true };
}

/** What was dropped counts too: each asks somebody for a word, and leaves rows that stay. @throws MayflyError `too_many_approvals` */
function requireRoom(
  { approvals, mintsPerTask }: Pick<BrokerDeps, 'approvals' | 'mintsPerTask'>,
  { had, open }: { readonly had: number; readonly open: number },
  leftMillis: number,
): void {
  // Waiting does not help before the task is over.
  if (had >= mintsPerTask)
    throw new MayflyError('too_many_approvals', `It has had ${had}.`, {
      retryAfterSeconds: Math.ceil(leftMillis / 1000),
    });
  if (open >= approvals.perTask)
    throw new MayflyError('too_many_approvals', `It waits for ${open}.`, { retryAfterSeconds: 5 });
}

interface Waiting {
  readonly grant: Grant;
  readonly approval: Approval;
  readonly repeated?: true;
}

/**
 * Lets the key stand for the new grant. What it stood for before ends, unless that waits itself, and in time: then it is the answer.
 * @returns what ended, or what waits.
 */
async function settleKey(
  tx: Transaction,
  { grant, idempotency }: Intent,
  {
    lapse,
    end,
  }: {
    readonly lapse: (id: Grant['id']) => Promise<number>;
    readonly end: (id: Grant['id']) => Promise<readonly GrantWithRevocation[]>;
  },
): Promise<GrantWithRevocation[] | Waiting> {
  if (idempotency === null || (await takeKey(tx, grant.taskId, grant.id, idempotency))) return [];
  const used = await findUsedKey(tx, grant.taskId, idempotency.key, idempotency.bodyDigest);
  if (used === undefined || used.state === 'minting')
    throw new MayflyError('key_in_flight', undefined, { retryAfterSeconds: 1 });
  if (!used.sameBody) throw new MayflyError('idempotency_key_reused');
  if (used.state === 'pending_approval' || used.state === 'approved') {
    const [waiting, approval] = [
      await findAnyGrant(tx, used.grantId, null),
      await findApprovalOfGrant(tx, used.grantId),
    ];
    if (waiting === undefined || approval === undefined) throw new MayflyError('internal');
    if (approval.expiresAt > tx.now) return { grant: waiting.grant, approval, repeated: true };
    // Nobody can decide or collect it any more, and the sweeper just has not said so yet.
    await lapse(used.grantId);
  }
  await moveUsedKey(tx, grant.taskId, idempotency.key, grant.id);
  return [...(await end(used.grantId))];
}
