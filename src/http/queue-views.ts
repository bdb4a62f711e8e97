import type { QueuePage, RevocationStory } from '../broker/read-queue.ts';
import { wireId } from '../domain/ids.ts';
import type { QueuedRevocation } from '../store/queue.ts';
import type { Queue } from '../store/revocations.ts';
import type { Pause } from '../store/target-controls.ts';
import type {
  PauseBody,
  QueuedBody,
  QueuePageBody,
  StoryBody,
  TargetControlBody,
  TargetCounts,
} from './queue-bodies.ts';
import { viewOfEvent } from './views.ts';

export function viewOfPage({ items, next, queue }: QueuePage): QueuePageBody {
  return {
    items: items.map(viewOfQueued),
    next_cursor: next === undefined ? null : cursorOf(next),
    counts: countsOf(queue),
  };
}

export function viewOfStory({ revocation, events, pause }: RevocationStory): StoryBody {
  return {
    revocation: viewOfQueued(revocation),
    events: events.map(viewOfEvent),
    ...(pause === undefined ? {} : { pause: viewOfPause(pause) }),
  };
}

export function viewOfControl(target: string, pause: Pause | undefined): TargetControlBody {
  return { target, pause: pause === undefined ? null : viewOfPause(pause), says: saysOf(pause) };
}

/** The id of the last item of a page: no caller shall make one. */
export function cursorOf(id: string): string {
  return Buffer.from(id.replaceAll('-', ''), 'hex').toString('base64url');
}

/** @param cursor Sixteen bytes in base64url. */
export function afterOf<Id extends string>(cursor: string): Id {
  const hex = Buffer.from(cursor, 'base64url').toString('hex');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5') as Id;
}

function saysOf(pause: Pause | undefined): string {
  if (pause === undefined) return 'Grants are issued and taken back.';
  return pause.deadlinesHeld
    ? 'NOTHING is taken back here but by a kill, not even at its deadline, and nothing is issued or renewed, until it is resumed.'
    : 'Grants that ended early are not taken back before their deadline, and none is issued or renewed, until it is resumed.';
}

export function viewOfPause({ since, by, reason, deadlinesHeld }: Pause): PauseBody {
  return { since: since.toISOString(), by, reason, deadlines: deadlinesHeld ? 'held' : 'run' };
}

function viewOfQueued(item: QueuedRevocation): QueuedBody {
  const { holder, writtenOff } = item;
  return {
    id: wireId('rev', item.id),
    grant_id: wireId('grt', item.grantId),
    task_id: wireId('task', item.taskId),
    target: item.target,
    entitlement: item.entitlement,
    workload: item.agent,
    state: item.state,
    grant_state: item.grantState,
    ...(item.endedBy === null ? {} : { ended_by: item.endedBy }),
    guarantee: item.guarantee,
    deadline: item.deadline.toISOString(),
    due_at: item.dueAt.toISOString(),
    ...(item.awaitsExpiry ? { native_expiry_at: item.deadline.toISOString() } : {}),
    ...(item.state === 'due' || item.state === 'contained' ? { next_try_at: item.tryAt.toISOString() } : {}),
    attempts: item.attempts,
    ...(item.lastError === null ? {} : { last_error: item.lastError }),
    ...timed('last_error_at', item.lastErrorAt),
    ...timed('overdue_since', item.overdueAt),
    ...(holder === null
      ? {}
      : { held_by: { worker: holder.worker, ...timed('since', holder.since), until: holder.until.toISOString() } }),
    ...(item.evidence === null ? {} : { evidence: { ...item.evidence } }),
    ...residualOf(item),
    ...timed('contained_at', item.containedAt),
    ...timed('clean_at', item.cleanAt),
    ...(writtenOff === null
      ? {}
      : { written_off: { at: writtenOff.at.toISOString(), by: writtenOff.by, reason: writtenOff.reason } }),
  };
}

function residualOf({ guarantee, containedAt, evidence }: QueuedRevocation): { residual?: string } {
  const residual = evidence?.['residual'];
  return guarantee === 'irrevocable' && containedAt !== null && typeof residual === 'string' ? { residual } : {};
}

export function timed<K extends string>(name: K, at: Date | null): { [key in K]?: string } {
  const given: { [key in K]?: string } = {};
  if (at !== null) given[name] = at.toISOString();
  return given;
}

function countsOf({ backlog, paused, residual }: Queue): TargetCounts[] {
  const targets = [...new Set([...backlog.map((row) => row.target), ...paused.keys(), ...residual.keys()])].sort();
  return targets.map((target) => {
    const rows = backlog.filter((row) => row.target === target);
    const count = (state: (typeof rows)[number]['state']) => rows.find((row) => row.state === state)?.count ?? 0;
    const late = rows.filter((row) => row.overdue > 0);
    const pause = paused.get(target);
    return {
      target,
      due: count('due'),
      waiting: count('waiting'),
      running: count('running'),
      contained: count('contained'),
      written_off: count('written_off'),
      overdue: late.reduce((sum, row) => sum + row.overdue, 0),
      oldest_overdue_seconds: late.reduce((most, row) => Math.max(most, row.oldestSeconds), 0),
      residual: residual.get(target) ?? 0,
      ...(pause === undefined ? {} : { pause: viewOfPause(pause) }),
    };
  });
}
