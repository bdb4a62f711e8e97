import { z } from 'zod';
import type { Catalog } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import type { DecisionId, TaskId } from '../domain/ids.ts';
import { type Task, workloadId } from '../domain/task.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from '../policy/engine.ts';
import { entityKey } from '../policy/fit.ts';
import type { PolicyDecision } from '../policy/types.ts';
import type { Queryable } from '../store/database.ts';
import { listRecentDecisions, type RecentDecision, storeTimeBefore } from '../store/recent-decisions.ts';
import { findTasks } from '../store/tasks.ts';
import {
  type ApprovalCounts,
  type ChangedApprovals,
  CountedApprovals,
  ForeseenApprovals,
  noChange,
} from './foresee-approvals.ts';
import { giveWay } from './give-way.ts';
import { checkParams } from './params.ts';
import { fallenOf } from './standing.ts';

const DAY_SECONDS = 86_400;
const PAGE = 200;
/** The newest so many are decided again; with a thousand policies that takes half a minute of one core. */
const MOST = 10_000;
/** So many are told one by one; all of them are counted. */
const TOLD = 200;

/** A decision that would come out otherwise. */
export interface ChangedDecision {
  readonly id: DecisionId;
  readonly taskId: TaskId | null;
  /** `<source>:<subject>`; null where it was about somebody who is no workload. */
  readonly workload: string | null;
  readonly action: string;
  readonly resource: string;
  /** What it would be. */
  readonly permitted: boolean;
  /** `denied_by_policy`, or what is gone; `approval_required`: permitted once approved, which it had not to be; null where it would be permitted. */
  readonly because: string | null;
  /** Those that would determine it. */
  readonly policies: readonly string[];
  readonly approvals: ChangedApprovals;
}

export interface ChangedCount {
  readonly newlyDenied: number;
  readonly newlyPermitted: number;
}

/** Decisions of the last day, decided again by a catalog that is not in force. */
export interface ForeseenDecisions extends ChangedCount {
  readonly since: Date;
  readonly looked: number;
  /** There were more: those looked at are the newest. */
  readonly sampled: boolean;
  readonly unchanged: number;
  /** Policy would fail. */
  readonly failed: number;
  /** Permitted before and after, and by other groups' approval: those that newly need one, and those that need none of those any more. */
  readonly newlyApproved: number;
  readonly noLongerApproved: number;
  readonly approvals: ApprovalCounts;
  /** Permitted, and policies that are only told would deny it. */
  readonly reported: number;
  /** No policy made them, so that none can make them again. */
  readonly impossible: number;
  /** The newest of those that change. */
  readonly changed: readonly ChangedDecision[];
  readonly tasks: ReadonlyMap<TaskId, ChangedCount & { readonly workload: string | null }>;
  readonly workloads: ReadonlyMap<string, ChangedCount>;
}

const phaseSchema = z.object({
  uid: z.object({ type: z.literal('Mayfly::Task') }),
  attrs: z.object({ phase: z.string().min(1) }),
});

type Again = Pick<ChangedDecision, 'permitted' | 'because' | 'policies' | 'approvals'> & { readonly reported?: true };

/**
 * Decides what was decided in the last day by another catalog, from the stored inputs: who asked, when, and what there was then are as
 * they were; what the catalog says is the other one's. Changes nothing.
 * @param active The catalog in force, if there is one.
 * @param most At most so many, for tests.
 */
export async function foreseeDecisions(
  db: Queryable,
  active: Catalog | null,
  next: Catalog,
  signal?: AbortSignal,
  most = MOST,
): Promise<ForeseenDecisions> {
  const since = await storeTimeBefore(db, DAY_SECONDS);
  const policy = createPolicyEngine(next.policySet, next.digest);
  const storedBefore = new Set((active?.policySet.entities ?? []).map(entityKey));
  const told = new Told();
  let approvals: ForeseenApprovals | undefined;
  try {
    approvals = new ForeseenApprovals(active, next);
    for (let before: DecisionId | null | undefined = null; before !== undefined; ) {
      const page: RecentDecision[] = await listRecentDecisions(
        db,
        since,
        before,
        Math.min(PAGE, most + 1 - told.looked),
      );
      const ids = [...new Set(page.flatMap(({ taskId }) => taskId ?? []))];
      const tasks = new Map((await findTasks(db, ids)).map((task) => [task.id, task]));
      for (const decision of page) {
        if (told.looked === most) return { since, sampled: true, ...told.all() };
        signal?.throwIfAborted();
        await giveWay();
        const task = decision.taskId === null ? undefined : tasks.get(decision.taskId);
        told.add(decision, task, again({ policy, next, storedBefore, approvals }, decision, task));
      }
      before = page.length < PAGE ? undefined : page.at(-1)?.id;
    }
    return { since, sampled: false, ...told.all() };
  } finally {
    approvals?.close();
    policy.close();
  }
}

interface By {
  readonly policy: OwnedPolicyEngine;
  readonly next: Catalog;
  readonly storedBefore: ReadonlySet<string>;
  readonly approvals: ForeseenApprovals;
}

function again(
  { policy, next, storedBefore, approvals }: By,
  decision: RecentDecision,
  task: Task | undefined,
): Again | 'failed' | 'impossible' {
  const { inputs, resource, action } = decision;
  if (Object.keys(inputs).length === 0) return 'impossible';
  const denied = (because: string): Again => ({ permitted: false, because, policies: [], approvals: noChange });
  const fallen = task && fallenOf(next, { ...task, phase: phaseThen(inputs) ?? null });
  if (fallen !== undefined) return denied(fallen);
  const decided = policy.reconsider(inputs, { catalog: next, storedBefore });
  if (typeof decided === 'string') return denied(decided);
  const entitlement = action === 'evaluate' ? undefined : next.entitlements.get(resource);
  if (entitlement !== undefined && task !== undefined && !fits(() => checkParams(entitlement, task.ceiling.params)))
    return denied('params_invalid');
  return outcomeOf(decided, approvals.changed(decision, decided));
}

/** The phase that the task was in; undefined where it was in none. */
function phaseThen({ entities }: RecentDecision['inputs']): string | undefined {
  const phases = Array.isArray(entities) ? entities.flatMap((entity) => phaseSchema.safeParse(entity).data ?? []) : [];
  return phases[0]?.attrs.phase;
}

function outcomeOf(
  { errors, permitted, policies, reported }: PolicyDecision,
  approvals: ChangedApprovals,
): Again | 'failed' {
  if (errors.length > 0) return 'failed';
  return {
    ...{ permitted, because: permitted ? becauseOf(approvals) : 'denied_by_policy', policies, approvals },
    ...(reported && { reported: true }),
  };
}

function becauseOf({ newly }: ChangedApprovals): 'approval_required' | null {
  return newly.length > 0 ? 'approval_required' : null;
}

function fits(check: () => unknown): boolean {
  try {
    check();
    return true;
  } catch (error) {
    if (error instanceof MayflyError) return false;
    throw error;
  }
}

/** What came of it, counted. */
class Told {
  looked = 0;
  #unchanged = 0;
  #failed = 0;
  #impossible = 0;
  #reported = 0;
  readonly #approved = { newlyApproved: 0, noLongerApproved: 0 };
  readonly #approvals = new CountedApprovals();
  readonly #all = { newlyDenied: 0, newlyPermitted: 0 };
  readonly #changed: ChangedDecision[] = [];
  readonly #tasks = new Map<TaskId, { newlyDenied: number; newlyPermitted: number; workload: string | null }>();
  readonly #workloads = new Map<string, { newlyDenied: number; newlyPermitted: number }>();

  add(decision: RecentDecision, task: Task | undefined, outcome: Again | 'failed' | 'impossible'): void {
    this.looked += 1;
    if (typeof outcome === 'object' && outcome.reported === true) this.#reported += 1;
    if (outcome === 'impossible') this.#impossible += 1;
    else if (outcome === 'failed') this.#failed += 1;
    else {
      const { newly, noLonger } = outcome.approvals;
      const isAsWas = outcome.permitted === decision.permitted;
      if (isAsWas && newly.length + noLonger.length === 0) this.#unchanged += 1;
      else this.#change(decision, task === undefined ? askedBy(decision.inputs) : workloadId(task.workload), outcome);
    }
  }

  all() {
    return {
      ...{ looked: this.looked, unchanged: this.#unchanged, failed: this.#failed, impossible: this.#impossible },
      ...{ reported: this.#reported, ...this.#approved, approvals: this.#approvals.all() },
      ...{ ...this.#all, changed: this.#changed, tasks: this.#tasks, workloads: this.#workloads },
    };
  }

  #change(before: RecentDecision, workload: string | null, outcome: Again): void {
    const { id, taskId, action, resource } = before;
    const { permitted, because, policies, approvals } = outcome;
    this.#approvals.add(approvals);
    if (this.#changed.length < TOLD)
      this.#changed.push({ id, taskId, workload, action, resource, permitted, because, policies, approvals });
    if (permitted === before.permitted) {
      if (approvals.newly.length > 0) this.#approved.newlyApproved += 1;
      else this.#approved.noLongerApproved += 1;
      return;
    }
    const which = permitted ? 'newlyPermitted' : 'newlyDenied';
    this.#all[which] += 1;
    if (taskId !== null) {
      const of = this.#tasks.get(taskId) ?? { newlyDenied: 0, newlyPermitted: 0, workload };
      of[which] += 1;
      this.#tasks.set(taskId, of);
    }
    if (workload !== null) {
      const of = this.#workloads.get(workload) ?? { newlyDenied: 0, newlyPermitted: 0 };
      of[which] += 1;
      this.#workloads.set(workload, of);
    }
  }
}

/** Of an evaluation about a workload itself. */
function askedBy({ principal }: RecentDecision['inputs']): string | null {
  const isWorkload =
    typeof principal === 'object' && principal !== null && 'type' in principal && principal.type === 'Mayfly::Workload';
  return isWorkload && 'id' in principal && typeof principal.id === 'string' ? principal.id : null;
}
