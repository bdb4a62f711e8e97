import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { GrantId, TaskId } from '../domain/ids.ts';
import { workloadId } from '../domain/task.ts';
import { createPolicyEngine } from '../policy/engine.ts';
import type { Queryable } from '../store/database.ts';
import { listLiving, type LivingPlace } from '../store/drift.ts';
import { readTaskStates } from '../store/tasks.ts';
import { type ApprovalCounts, CountedApprovals } from './foresee-approvals.ts';
import { giveWay } from './give-way.ts';
import { retainGrant } from './retain-grant.ts';

const PAGE = 500;

/** A living grant that would end. */
export interface ForeseenEnd {
  readonly grantId: GrantId;
  readonly taskId: TaskId;
  /** Its owner, `<source>:<subject>`. */
  readonly workload: string;
  readonly entitlement: string;
  readonly target: string;
  readonly because: string;
  readonly policies: readonly string[];
  /** Of `approval_required`: the groups that have not approved it. */
  readonly groups: readonly string[];
}

export interface Foreseen {
  /** Living grants, by target. */
  readonly living: ReadonlyMap<string, number>;
  readonly ends: readonly ForeseenEnd[];
  /** Policy would fail for so many: nothing would happen to them, and nothing like them would be issued. */
  readonly failed: number;
  /** Policies that are only told would end so many. */
  readonly reported: number;
  /** Whose approval living grants would newly need (they end), or would have without need. */
  readonly approvals: ApprovalCounts;
}

/** How much of what lives a new revision may end. */
export interface Guard {
  /** Percent of all living grants, and of those of each target. */
  readonly maxDriftShare: number;
  /** So many are known to end, and are meant to. Null: nobody said so. */
  readonly expectRevoked: number | null;
}

/** Decides every living grant by a catalog that is not in force. Changes nothing. */
export async function foreseeDrift(db: Queryable, catalog: Catalog, signal?: AbortSignal): Promise<Foreseen> {
  const policy = createPolicyEngine(catalog.policySet, catalog.digest);
  try {
    const living = new Map<string, number>();
    const ends: ForeseenEnd[] = [];
    let failed = 0;
    let reported = 0;
    const approvals = new CountedApprovals();
    for (let after: LivingPlace | null | undefined = null; after !== undefined; ) {
      const page = await listLiving(db, after, PAGE);
      const taskIds = [...new Set(page.map(({ taskId }) => taskId))];
      const states = new Map(
        (await readTaskStates(db, taskIds)).flatMap((state) => (state ? [[state.task.id, state]] : [])),
      );
      for (const each of page) {
        signal?.throwIfAborted();
        await giveWay();
        const state = states.get(each.taskId);
        if (state === undefined) continue;
        living.set(each.target, (living.get(each.target) ?? 0) + 1);
        const retained = retainGrant({ catalog, policy }, each, state);
        if (retained.kind === 'failed') failed += 1;
        if (retained.kind === 'stays' && retained.reported !== undefined) reported += 1;
        if (retained.kind === 'stays') approvals.add({ newly: [], noLonger: retained.unneeded ?? [] });
        if (retained.kind !== 'drifted') continue;
        const groups = retained.groups ?? [];
        approvals.add({ newly: groups, noLonger: [] });
        ends.push({
          grantId: each.id,
          taskId: each.taskId,
          workload: workloadId(state.task.workload),
          entitlement: each.entitlement,
          target: each.target,
          because: retained.because,
          policies: retained.policy?.policies ?? [],
          groups,
        });
      }
      after = page.length < PAGE ? undefined : page.at(-1);
    }
    return { living, ends, failed, reported, approvals: approvals.all() };
  } finally {
    policy.close();
  }
}

export function countLiving({ living }: Pick<Foreseen, 'living'>): number {
  return [...living.values()].reduce((sum, count) => sum + count, 0);
}

/** @throws MayflyError `too_much_drift`, with what would end, unless it is little or exactly what was expected. */
export function requireLittleDrift(foreseen: Foreseen, { maxDriftShare, expectRevoked }: Guard): void {
  const { ends, living } = foreseen;
  if (expectRevoked !== null) {
    if (ends.length === expectRevoked) return;
    throw refusal(foreseen, `${expectRevoked} were expected to end.`);
  }
  const much = (count: number, of: number) => count * 100 > maxDriftShare * of;
  const targets = [...living].filter(([name, of]) => much(ends.filter(({ target }) => target === name).length, of));
  if (targets.length === 0 && !much(ends.length, countLiving(foreseen))) return;
  const where = targets.length === 0 ? '' : ` (${targets.map(([name]) => name).join(', ')})`;
  throw refusal(foreseen, `At most ${maxDriftShare} % of all, and of each target’s${where}, may end unasked.`);
}

function refusal(foreseen: Foreseen, rule: string): MayflyError {
  const { ends, living } = foreseen;
  const targets = [...living].map(([target, count]) => ({
    target,
    living: count,
    would_end: ends.filter((end) => end.target === target).length,
  }));
  const all = countLiving(foreseen);
  return new MayflyError(
    'too_much_drift',
    `It would end ${ends.length} of ${all} living grants: ${targets
      .filter(({ would_end: some }) => some > 0)
      .map(({ target, living: of, would_end: some }) => `${some} of ${of} on ${target}`)
      .join(', ')}. ${rule}`,
    { members: { living: all, would_end: ends.length, targets } },
  );
}
