import { MayflyError } from '../domain/errors.ts';
import type { RevocationId } from '../domain/ids.ts';
import type { Caller } from '../identity/types.ts';
import { findQueued, listQueue, type QueuedRevocation, type QueueFilter } from '../store/queue.ts';
import { type Queue, readQueue } from '../store/revocations.ts';
import { findPause, type Pause } from '../store/target-controls.ts';
import { listTaskEvents, type StoredEvent } from '../store/timeline.ts';
import type { BrokerDeps } from './deps.ts';
import { isTargetInScope, type ScopedTargets, requireInScope, requireRole } from './operator-scope.ts';

/** Of one that has more the latest are told. */
const MOST_EVENTS = 500;

export interface QueuePage {
  readonly items: readonly QueuedRevocation[];
  /** Undefined when there is no more. */
  readonly next: RevocationId | undefined;
  /** Of all of it that is in the caller's scope, whatever the filter. */
  readonly queue: Queue;
}

export async function readQueuePage(
  deps: BrokerDeps,
  caller: Caller,
  filter: QueueFilter,
  after: RevocationId | null,
  limit: number,
): Promise<QueuePage> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const within = scope && [...scope];
  const [found, queue] = await Promise.all([listQueue(deps.db, filter, within, after, limit + 1), readQueue(deps.db)]);
  const items = found.slice(0, limit);
  return { items, next: found.length > limit ? items.at(-1)?.id : undefined, queue: queueInScope(queue, scope) };
}

function queueInScope({ backlog, paused, residual, kills, killsUnconfirmed }: Queue, scope: ScopedTargets): Queue {
  return {
    backlog: backlog.filter(({ target }) => isTargetInScope(scope, target)),
    paused: new Map([...paused].filter(([target]) => isTargetInScope(scope, target))),
    residual: new Map([...residual].filter(([target]) => isTargetInScope(scope, target))),
    kills,
    killsUnconfirmed,
  };
}

export interface RevocationStory {
  readonly revocation: QueuedRevocation;
  /** What became of the grant from its end on, oldest first. */
  readonly events: readonly StoredEvent[];
  /** The pause of its target, if it is paused. */
  readonly pause: Pause | undefined;
}

export async function readRevocation(deps: BrokerDeps, caller: Caller, id: RevocationId): Promise<RevocationStory> {
  const { scope } = requireRole(deps, caller, 'viewer');
  const story = await tellRevocation(deps, id);
  requireInScope(scope, story.revocation.target);
  return story;
}

/** A revocation with all that is known of it; the caller was let in before. @throws MayflyError `not_found` */
export async function tellRevocation(deps: Pick<BrokerDeps, 'db'>, id: RevocationId): Promise<RevocationStory> {
  const revocation = await findQueued(deps.db, id);
  if (revocation === undefined) throw new MayflyError('not_found');
  const [events, pause] = await Promise.all([
    listTaskEvents(deps.db, revocation.taskId, MOST_EVENTS, revocation.grantId),
    findPause(deps.db, revocation.target),
  ]);
  const ending = (type: string) =>
    type.startsWith('revocation.') || type === 'grant.ended' || type === 'grant.mint_failed';
  return {
    revocation,
    events: events.filter(({ type }) => ending(type)),
    pause,
  };
}
