import { MayflyError } from '../domain/errors.ts';
import { type RevocationId, wireId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import type { Transaction } from '../store/database.ts';
import { findActiveRevisionNumber } from '../store/catalog-revisions.ts';
import { findQueued, holdQueued, markWrittenOff, type QueuedRevocation, tryNow } from '../store/queue.ts';
import type { AwaitsSecond } from '../store/second-person.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { operatorEvent } from './evidence.ts';
import { type ScopedTargets, requireInScope, requireRole } from './operator-scope.ts';
import { requireRevision, revisionOf } from './revision.ts';
import { agree, personOf, takesTwo } from './second-person.ts';

/**
 * Lets a revocation be tried now instead of at its next try. Attempts count on. One that a worker has in hand is being tried
 * already. Said again, it answers the same.
 * @throws MayflyError `not_found`, `revocation_not_due`, `revocation_over`
 */
export async function retryRevocation(
  deps: BrokerDeps,
  caller: Caller,
  id: RevocationId,
  context: CallContext,
): Promise<QueuedRevocation> {
  const { operator, scope } = requireRole(deps, caller, 'operator');
  const tried = await deps.db.transaction({}, async (tx) => {
    const held = await hold(tx, scope, id);
    if (held.state === 'clean' || held.state === 'written_off') throw over(held);
    // A claim that has lapsed is nobody's any more.
    const inHand = held.state === 'running' || (held.holder !== null && held.holder.until > tx.now);
    if (inHand || held.tryAt <= tx.now) return held;
    await tryNow(tx, id);
    tx.record(
      operatorEvent('revocation.retried', deps.catalog, context, operator, about(held, { attempts: held.attempts })),
    );
    step('retry.before');
    return { ...held, tryAt: tx.now };
  });
  step('retry.after');
  deps.alarms.now(tried.target);
  return tried;
}

/**
 * Gives an obligation up, by an operator's word, or by that of two where the catalog wants it. The grant stays `revoking` and is
 * counted apart: nothing says that the credential is gone. It is taken up again where the reconciler finds it to live.
 * @returns what waits for a second person, if nothing was done yet.
 * @throws MayflyError `not_found`, `revocation_not_due`, `revocation_running`, `revocation_over`, `second_person_needed`
 */
export async function writeOffRevocation(
  deps: BrokerDeps,
  caller: Caller,
  id: RevocationId,
  reason: string,
  context: CallContext,
): Promise<QueuedRevocation | AwaitsSecond> {
  const active = revisionOf(deps, caller);
  const { operator, scope } = requireRole(deps, caller, 'operator');
  const awaits = await deps.db.transaction({ catalog: 'shared' }, async (tx) => {
    requireRevision(active, await findActiveRevisionNumber(tx));
    const held = await hold(tx, scope, id);
    if (held.state === 'running') throw new MayflyError('revocation_running', undefined, { retryAfterSeconds: 5 });
    if (held.state !== 'due') throw over(held);
    const agreed = takesTwo(active.catalog, 'write_off')
      ? await agree(
          deps,
          tx,
          personOf(active.catalog, caller),
          { operation: 'write_off', resource: wireId('rev', id), said: [active.number, id, reason] },
          context,
        )
      : undefined;
    if (agreed !== undefined && 'awaits' in agreed) return agreed.awaits;
    await markWrittenOff(tx, id, operator, reason);
    const payload = {
      ...{ reason, attempts: held.attempts, last_error: held.lastError, due_at: held.dueAt.toISOString() },
      ...(agreed && { first_person: agreed.first.name }),
    };
    tx.record(operatorEvent('revocation.written_off', deps.catalog, context, operator, about(held, payload)));
    tx.changed(held.taskId);
    step('write-off.before');
    return undefined;
  });
  step('write-off.after');
  if (awaits !== undefined) return awaits;
  const after = await findQueued(deps.db, id);
  if (after === undefined) throw new MayflyError('internal');
  return after;
}

/** One whose grant has ended. @throws MayflyError `not_found`, `revocation_not_due` */
async function hold(tx: Transaction, scope: ScopedTargets, id: RevocationId): Promise<QueuedRevocation> {
  const held = await holdQueued(tx, id);
  if (held === undefined) throw new MayflyError('not_found');
  requireInScope(scope, held.target);
  if (held.state === 'scheduled')
    throw new MayflyError('revocation_not_due', undefined, { members: { state: held.state } });
  return held;
}

function over({ state, writtenOff }: QueuedRevocation): MayflyError {
  return new MayflyError('revocation_over', undefined, {
    members: { state, ...(writtenOff === null ? {} : { written_off_by: writtenOff.by }) },
  });
}

function about(held: QueuedRevocation, payload: Readonly<Record<string, unknown>>) {
  return {
    agent: held.agent,
    behalf: held.subject,
    resource: held.entitlement,
    cause: held.endedBy ?? 'none',
    taskId: held.taskId,
    grantId: held.grantId,
    txn: held.txn,
    payload: { target: held.target, handle: held.handle, revocation_id: `rev_${held.id}`, ...payload },
  };
}
