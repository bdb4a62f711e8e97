import { MayflyError } from '../domain/errors.ts';
import type { GrantId } from '../domain/ids.ts';
import { step } from '../domain/step.ts';
import type { Caller } from '../identity/types.ts';
import { findGrants, type GrantWithRevocation, type ReadGrant } from '../store/grants.ts';
import type { OwnedGrant } from '../store/owned-grants.ts';
import type { BrokerDeps, CallContext } from './deps.ts';
import { digestInForce, grantEvent } from './evidence.ts';
import { lapseApprovals } from './lapse-approvals.ts';
import { findAnyGrantFor, findGrantFor } from './operator-scope.ts';

/** Ends one grant before its deadline, or gives up one that waits for its approval. Said again, it answers the same. */
export async function releaseGrant(
  deps: BrokerDeps,
  caller: Caller,
  id: GrantId,
  context: CallContext,
): Promise<ReadGrant> {
  const read = await findAnyGrantFor(deps, caller, 'operator', id);
  if (read.revocation === null) {
    await deps.db.transaction({}, async (tx) => {
      await lapseApprovals(deps, tx, { kind: 'grant', id }, 'released', context);
      step('drop-ask.before');
    });
    step('drop-ask.after');
    const left = await findAnyGrantFor(deps, caller, 'operator', id);
    // Collected at the same moment: then there is something to end.
    if (left.revocation === null) return left;
  }
  const found = await findGrantFor(deps, caller, 'operator', id);
  const by = caller.kind === 'operator' ? caller.operator : 'owner';
  return await endGrant(deps, found, caller.kind === 'operator' ? 'operator' : 'released', by, context);
}

/** Ends a grant whose secret did not reach its caller: nobody holds it, so nobody will release it. */
export async function takeBackUndelivered(
  deps: BrokerDeps,
  delivered: GrantWithRevocation,
  context: CallContext,
): Promise<void> {
  const found = await deps.ownedGrants.find(delivered.grant.id, null);
  if (found === null) throw new MayflyError('internal');
  await endGrant(deps, found, 'released', 'undelivered', context);
}

async function endGrant(
  deps: BrokerDeps,
  { grant, revocation, task, now }: OwnedGrant,
  endedBy: 'released' | 'operator',
  by: string,
  context: CallContext,
): Promise<GrantWithRevocation> {
  const event = grantEvent('grant.ended', task, grant, digestInForce(deps.catalog), context, {
    cause: endedBy,
    payload: { by },
  });
  step('release.before');
  const ended = await deps.ownedGrants.end({ id: grant.id, endedBy, event, now });
  step('release.after');
  if (ended) {
    deps.alarms.now(grant.target);
    deps.db.announce([grant.taskId]);
  }
  // Where the target can only let it expire, the store says when its end is owed.
  if (ended && grant.guarantee.revocation !== 'expiry-only') {
    return {
      grant: { ...grant, state: 'revoking', endedAt: now, endedBy },
      revocation: { ...revocation, state: 'due', dueAt: now, tryAt: now },
    };
  }
  const [after] = await findGrants(deps.db, [grant.id]);
  if (after === undefined) throw new MayflyError('internal');
  return after;
}
