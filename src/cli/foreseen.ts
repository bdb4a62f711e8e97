import { countLiving, type Foreseen } from '../broker/foresee-drift.ts';
import { wireId } from '../domain/ids.ts';
import { table } from './output.ts';

/** Tasks shown to a person; `--json` has all. */
const SHOWN = 50;

interface TaskEnds {
  readonly task: string;
  readonly workload: string;
  readonly grants: readonly { readonly id: string; readonly entitlement: string; readonly because: string }[];
}

/** What would end, by task and owner, as JSON. */
export function foreseenBody(foreseen: Foreseen) {
  return {
    living: countLiving(foreseen),
    would_end: foreseen.ends.length,
    undecidable: foreseen.failed,
    targets: Object.fromEntries(
      [...foreseen.living].map(([name, living]) => [
        name,
        { living, would_end: foreseen.ends.filter(({ target }) => target === name).length },
      ]),
    ),
    tasks: byTask(foreseen),
  };
}

/** The same for people. */
export function renderForeseen(foreseen: Foreseen): string {
  const living = countLiving(foreseen);
  const failed =
    foreseen.failed === 0 ? '' : ` Policy fails for ${foreseen.failed} of them: nothing like those would be issued.`;
  if (foreseen.ends.length === 0) return `Of ${living} living grants none would end.${failed}`;
  const tasks = byTask(foreseen);
  const rows = tasks
    .slice(0, SHOWN)
    .flatMap(({ task, workload, grants }) =>
      grants.map(({ entitlement, because }) => [`  ${task}`, workload, entitlement, because]),
    );
  const more = tasks.length > SHOWN ? [`  … and those of ${tasks.length - SHOWN} more tasks`] : [];
  return [
    `Of ${living} living grants ${foreseen.ends.length} would end.${failed}`,
    table(rows),
    ...more,
    `To apply it whatever its share: --expect-revoked ${foreseen.ends.length}`,
  ].join('\n');
}

function byTask({ ends }: Foreseen): readonly TaskEnds[] {
  const tasks = new Map<string, { task: string; workload: string; grants: TaskEnds['grants'][number][] }>();
  for (const { taskId, workload, grantId, entitlement, because, policies } of ends) {
    const task = wireId('task', taskId);
    const entry = tasks.get(task) ?? { task, workload, grants: [] };
    const named = policies.length === 0 ? because : `${because} (${policies.join(', ')})`;
    entry.grants.push({ id: wireId('grt', grantId), entitlement, because: named });
    tasks.set(task, entry);
  }
  return [...tasks.values()];
}
