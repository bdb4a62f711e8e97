import { MayflyError } from '../domain/errors.ts';
import type { GrantId } from '../domain/ids.ts';
import type { Caller } from '../identity/types.ts';
import { endGrants, findGrants, findOwnedGrant, type GrantWithRevocation } from '../store/grants.ts';
import { findTask } from '../store/tasks.ts';
import { ownerScope } from './callers.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';

/** Ends one grant before its deadline. Said again, it answers the same. */
export async function releaseGrant(
  deps: BrokerDeps,
  caller: Caller,
  id: GrantId,
  context: CallContext,
): Promise<GrantWithRevocation> {
  const found = await findOwnedGrant(deps.db, id, ownerScope(caller, 'operator'));
  if (found === undefined) throw new MayflyError('not_found');
  const by = caller.kind === 'operator' ? caller.operator : 'owner';
  return await endGrant(deps, found, caller.kind === 'operator' ? 'operator' : 'released', by, context);
}

/** Ends a grant whose secret did not reach its caller: nobody holds it, so nobody will release it. */
export async function takeBackUndelivered(
  deps: BrokerDeps,
  delivered: GrantWithRevocation,
  context: CallContext,
): Promise<void> {
  await endGrant(deps, delivered, 'released', 'undelivered', context);
}

async function endGrant(
  deps: BrokerDeps,
  found: GrantWithRevocation,
  endedBy: 'released' | 'operator',
  by: string,
  context: CallContext,
): Promise<GrantWithRevocation> {
  const digest = digestInForce(deps.catalog);
  const now = await deps.db.transaction({}, async (tx) => {
    const [ended] = await endGrants(tx, { grantIds: [found.grant.id] }, endedBy);
    if (ended === undefined) return undefined;
    const task = await findTask(tx, ended.grant.taskId);
    if (task === undefined) throw new MayflyError('internal');
    tx.record(
      grantEvent('grant.ended', task, ended.grant, digest, context, {
        cause: endedBy,
        payload: { by, revocation_id: `rev_${ended.revocation.id}` },
      }),
    );
    tx.changed(ended.grant.taskId);
    return ended;
  });
  if (now !== undefined) deps.alarms.now(now.grant.target);
  const [after] = await findGrants(deps.db, [found.grant.id]);
  return after ?? found;
}
