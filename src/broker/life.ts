import type { EntitlementDefinition } from '../catalog/types.ts';
import type { Bound, Life } from '../domain/deadline.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Guarantee } from '../domain/grant.ts';
import type { Task } from '../domain/task.ts';

/** What was cut from the life that the agent asked for, and by which bound. */
export interface Cut {
  readonly by: Bound['by'];
  readonly askedSeconds: number;
  readonly grantedSeconds: number;
}

/** @param now The store's clock, or null to judge by state alone. */
export function checkAlive(task: Task, now: Date | null): void {
  if (task.state === 'offered') throw new MayflyError('task_offered');
  if (task.state === 'suspended') throw new MayflyError('task_suspended');
  if (task.state !== 'active')
    throw new MayflyError('task_ended', `The task is ${task.state}.`, { members: { ended_by: task.endedBy } });
  if (now !== null && task.notAfter <= now)
    throw new MayflyError('task_ended', 'The task’s deadline has passed.', { members: { ended_by: 'expired' } });
}

/** Every bound on the life of a grant but policy's own. Invariant 5. */
export function lifeBounds(
  asked: number | null,
  task: Task,
  entitlement: EntitlementDefinition,
  guarantee: Guarantee,
  now: Date,
): Bound[] {
  const bounds: Bound[] = [
    { by: 'entitlement', seconds: entitlement.maxTtlSeconds },
    { by: 'task', seconds: (task.notAfter.getTime() - now.getTime()) / 1000 },
    { by: 'provider', seconds: guarantee.max_ttl_seconds },
  ];
  if (task.ceiling.maxTtlSeconds !== null) bounds.unshift({ by: 'request', seconds: task.ceiling.maxTtlSeconds });
  if (asked !== null) bounds.unshift({ by: 'asked', seconds: asked });
  return bounds;
}

export function cutOf(request: { readonly ttlSeconds: number | null }, life: Life): Cut | null {
  if (request.ttlSeconds === null || life.cutBy === null) return null;
  return { by: life.cutBy, askedSeconds: request.ttlSeconds, grantedSeconds: Math.floor(life.seconds) };
}
