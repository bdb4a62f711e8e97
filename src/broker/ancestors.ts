import { MayflyError } from '../domain/errors.ts';
import { narrowed, type Task } from '../domain/task.ts';
import type { TaskState } from '../store/tasks.ts';

/**
 * The task as narrow as all that it hangs on is now: from the registry, whatever it was born with. A task that was opened hangs on
 * nothing.
 * @throws MayflyError `task_ended`, `task_suspended`, `not_in_phase`, `excessive_delegation`
 */
export function withinAncestors(state: TaskState): TaskState {
  const { task, now, seen } = state;
  const { ancestors } = seen;
  if (ancestors === undefined) return state;
  let within: Task = task;
  for (const [below, above] of ancestors.entries()) {
    if (above.state === 'suspended') throw new MayflyError('task_suspended', 'A task above it is suspended.');
    if (above.state !== 'active' || above.not_after_millis <= now.getTime())
      throw new MayflyError('task_ended', 'A task above it has ended.', { members: { ended_by: 'parent_ended' } });
    if (above.phase !== task.phase) throw new MayflyError('not_in_phase');
    if (above.max_depth <= below)
      throw new MayflyError('excessive_delegation', 'A task above it may have no tasks this far below it.');
    within = {
      ...within,
      ceiling: narrowed(within.ceiling, above.ceiling),
      notAfter: new Date(Math.min(within.notAfter.getTime(), above.not_after_millis)),
    };
  }
  return { ...state, task: within };
}
