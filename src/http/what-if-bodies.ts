import { z } from 'zod';
import type { CheckedCatalog } from '../catalog/check.ts';
import type { ChangedCount, ForeseenDecisions } from '../broker/foresee-decisions.ts';
import type { ApprovalCounts } from '../broker/foresee-approvals.ts';
import { countLiving, type Foreseen } from '../broker/foresee-drift.ts';
import type { WhatIf } from '../broker/what-if.ts';
import { wireId } from '../domain/ids.ts';
import { leftSuspended } from './signal-bodies.ts';
import { decisionId, grantId, taskId, time } from './answers.ts';

// What operators send of a catalog that is not in force, and what they are answered. `mayfly catalog` prints the same.

/** With what JSON adds to it. The store takes twice as much, from `mayfly catalog`. */
export const MOST_CATALOG_BYTES = 4 * 1024 * 1024;
/** Grants and tasks that are told one by one. All of them are counted. */
const MOST_ENDS = 1_000;
const MOST_TASKS = 100;

export const catalogFiles = z.record(z.string().min(1).max(600), z.string()).meta({
  description: 'The files of the catalog: path below its folder → text.',
});
export const proposalBody = z.strictObject({ files: catalogFiles }).meta({ id: 'ProposedCatalog' });

export const checkedBody = z
  .strictObject({
    ok: z.boolean(),
    digest: z.string().optional(),
    errors: z.array(
      z.strictObject({ path: z.string().meta({ description: '`file:line $.path`' }), message: z.string() }),
    ),
    policy_tests: z.array(z.strictObject({ name: z.string(), passed: z.boolean() })),
  })
  .meta({ id: 'CheckedCatalog' });

const count = z.int().min(0);
const changed = { newly_denied: count, newly_permitted: count };
const groups = z.array(z.string());
const approvals = z
  .array(z.strictObject({ group: z.string(), newly_needed: count, no_longer_needed: count }))
  .meta({ description: 'Whose approval would newly be needed, or no more, each group that is concerned.' });
const field = z.strictObject({ path: z.string(), before: z.unknown().optional(), after: z.unknown().optional() });

export const whatIfBody = z
  .strictObject({
    from: z.string().nullable().meta({ description: 'Digest of the catalog in force.' }),
    to: z.string(),
    changes: z.array(
      z.strictObject({
        kind: z.string(),
        name: z.string(),
        change: z.enum(['added', 'removed', 'changed']),
        fields: z.array(field),
      }),
    ),
    drift: z
      .strictObject({
        living: count,
        would_end: count,
        undecidable: count.meta({ description: 'Policy would fail for them.' }),
        reported: count.meta({ description: 'Policies with `@enforce("report")` would end them, were they enforced.' }),
        approvals,
        targets: z.record(z.string(), z.strictObject({ living: count, would_end: count })),
        told: count.meta({ description: `So many of those that would end stand in \`tasks\`: ${MOST_ENDS} at most.` }),
        tasks: z.array(
          z.strictObject({
            task: taskId,
            workload: z.string(),
            grants: z.array(
              z.strictObject({
                ...{ id: grantId, entitlement: z.string(), because: z.string() },
                groups: groups.optional().meta({ description: 'Of `approval_required`: who has not approved it.' }),
              }),
            ),
          }),
        ),
      })
      .meta({ description: 'Living grants that would end.' }),
    decisions: z
      .strictObject({
        since: time,
        looked: count,
        sampled: z.boolean().meta({ description: 'There were more: those looked at are the newest.' }),
        ...changed,
        unchanged: count,
        failed: count.meta({ description: 'Policy would fail.' }),
        reported: count.meta({
          description: 'Policies with `@enforce("report")` would deny them, were they enforced.',
        }),
        newly_to_be_approved: count.meta({ description: 'Permitted as before, once a group has approved it.' }),
        no_longer_to_be_approved: count.meta({
          description: 'Permitted as before, and without the approval of a group.',
        }),
        approvals,
        impossible: count.meta({ description: 'No policy had made them.' }),
        tasks: z.strictObject({
          total: count,
          items: z.array(z.strictObject({ task: taskId, workload: z.string().nullable(), ...changed })),
        }),
        workloads: z.strictObject({
          total: count,
          items: z.array(z.strictObject({ workload: z.string(), ...changed })),
        }),
        changed: z
          .array(
            z.strictObject({
              id: decisionId,
              task: taskId.nullable(),
              workload: z.string().nullable(),
              action: z.string(),
              resource: z.string(),
              decision: z.enum(['permit', 'deny']).meta({ description: 'What it would be.' }),
              because: z.string().nullable(),
              policies: z.array(z.string()),
              newly_approved_by: groups
                .optional()
                .meta({ description: 'Groups that would have to approve it, and had not to.' }),
              no_longer_approved_by: groups.optional(),
            }),
          )
          .meta({ description: 'The newest of those that would come out otherwise.' }),
      })
      .meta({ description: 'What was decided in the last day, decided again from its inputs.' }),
    left_suspended: leftSuspended,
  })
  .meta({ id: 'WhatIf' });
export type WhatIfBody = z.output<typeof whatIfBody>;

export function viewOfChecked({ catalog, faults, policyTests }: CheckedCatalog): z.output<typeof checkedBody> {
  return {
    ok: catalog !== null,
    ...(catalog === null ? {} : { digest: catalog.digest }),
    errors: [...faults],
    policy_tests: [...policyTests],
  };
}

export function viewOfWhatIf({ diff, drift, decisions, leftSuspended: left }: WhatIf): WhatIfBody {
  return {
    from: diff.from,
    to: diff.to,
    changes: diff.changes.map((change) => ({ ...change, fields: [...change.fields] })),
    drift: viewOfDrift(drift),
    decisions: viewOfDecisions(decisions),
    left_suspended: left.map((each) => ({ ...each })),
  };
}

function viewOfDrift(foreseen: Foreseen): WhatIfBody['drift'] {
  const { ends, living, failed, reported, approvals: byGroup } = foreseen;
  return {
    living: countLiving(foreseen),
    would_end: ends.length,
    undecidable: failed,
    reported,
    approvals: viewOfApprovals(byGroup),
    targets: Object.fromEntries(
      [...living].map(([name, of]) => [
        name,
        { living: of, would_end: ends.filter(({ target }) => target === name).length },
      ]),
    ),
    told: Math.min(ends.length, MOST_ENDS),
    tasks: byTask(ends.slice(0, MOST_ENDS)),
  };
}

type TaskEnds = WhatIfBody['drift']['tasks'][number];

function byTask(ends: Foreseen['ends']): TaskEnds[] {
  const tasks = new Map<string, TaskEnds>();
  for (const { taskId: id, workload, grantId: grant, entitlement, because, policies, groups: missing } of ends) {
    const task = wireId('task', id);
    const entry = tasks.get(task) ?? { task, workload, grants: [] };
    const named = policies.length === 0 ? because : `${because} (${policies.join(', ')})`;
    entry.grants.push({
      ...{ id: wireId('grt', grant), entitlement, because: named },
      ...(missing.length > 0 && { groups: [...missing] }),
    });
    tasks.set(task, entry);
  }
  return [...tasks.values()];
}

function viewOfDecisions(decisions: ForeseenDecisions): WhatIfBody['decisions'] {
  const { since, looked, sampled, unchanged, failed, reported, impossible, tasks, workloads } = decisions;
  return {
    ...{ since: since.toISOString(), looked, sampled, ...countsOf(decisions), unchanged, failed, reported, impossible },
    newly_to_be_approved: decisions.newlyApproved,
    no_longer_to_be_approved: decisions.noLongerApproved,
    approvals: viewOfApprovals(decisions.approvals),
    tasks: {
      total: tasks.size,
      items: most(tasks).map(([id, of]) => ({ task: wireId('task', id), workload: of.workload, ...countsOf(of) })),
    },
    workloads: {
      total: workloads.size,
      items: most(workloads).map(([workload, of]) => ({ workload, ...countsOf(of) })),
    },
    changed: decisions.changed.map(
      ({ id, taskId: task, workload, action, resource, permitted, because, policies, approvals: by }) => ({
        id: wireId('dec', id),
        task: task === null ? null : wireId('task', task),
        ...{ workload, action, resource, decision: permitted ? 'permit' : 'deny', because, policies: [...policies] },
        ...(by.newly.length > 0 && { newly_approved_by: [...by.newly] }),
        ...(by.noLonger.length > 0 && { no_longer_approved_by: [...by.noLonger] }),
      }),
    ),
  };
}

function viewOfApprovals(counts: ApprovalCounts): z.output<typeof approvals> {
  return [...counts].map(([group, { newly, noLonger }]) => ({
    group,
    newly_needed: newly,
    no_longer_needed: noLonger,
  }));
}

function countsOf({ newlyDenied, newlyPermitted }: ChangedCount): { newly_denied: number; newly_permitted: number } {
  return { newly_denied: newlyDenied, newly_permitted: newlyPermitted };
}

/** Those with the most changes first. */
function most<K, V extends ChangedCount>(counts: ReadonlyMap<K, V>): [K, V][] {
  const sum = ({ newlyDenied, newlyPermitted }: ChangedCount) => newlyDenied + newlyPermitted;
  return [...counts].toSorted(([, a], [, b]) => sum(b) - sum(a)).slice(0, MOST_TASKS);
}
