import type { Catalog } from '../catalog/types.ts';
import { obligations } from '../policy/annotations.ts';
import { createPolicyEngine, type OwnedPolicyEngine } from '../policy/engine.ts';
import { entityKey } from '../policy/fit.ts';
import type { PolicyDecision } from '../policy/types.ts';
import type { RecentDecision } from '../store/recent-decisions.ts';
import { unapproved } from './needed-approvals.ts';

/** Groups that would have to approve and had not to before, and those that would not have to any more. */
export interface ChangedApprovals {
  readonly newly: readonly string[];
  readonly noLonger: readonly string[];
}

/** How many decisions, or living grants, that is by group. */
export type ApprovalCounts = ReadonlyMap<string, { readonly newly: number; readonly noLonger: number }>;

export const noChange: ChangedApprovals = { newly: [], noLonger: [] };

/** Whose approval an earlier ask would need by another catalog, beside whose it needs by the one in force, from the same inputs. */
export class ForeseenApprovals {
  readonly #active: Catalog | null;
  readonly #next: Catalog;
  readonly #stored: ReadonlySet<string>;
  readonly #policy: OwnedPolicyEngine | undefined;

  constructor(active: Catalog | null, next: Catalog) {
    this.#active = active;
    this.#next = next;
    this.#stored = new Set((active?.policySet.entities ?? []).map(entityKey));
    // Each decision costs as much again: only where anything is ever approved.
    if (active !== null && wantsApprovals(active)) this.#policy = createPolicyEngine(active.policySet, active.digest);
  }

  /** @param would What the other catalog would say. */
  changed({ action, resource, inputs }: RecentDecision, would: PolicyDecision): ChangedApprovals {
    // What is asked of AuthZEN is never approved.
    if (action === 'evaluate' || !would.permitted) return noChange;
    const before = this.#before(resource, inputs);
    return changedGroups(before, unapproved(this.#next.limits, resource, would, []));
  }

  #before(resource: string, inputs: RecentDecision['inputs']): readonly string[] {
    if (this.#active === null || this.#policy === undefined) return [];
    const did = this.#policy.reconsider(inputs, { catalog: this.#active, storedBefore: this.#stored });
    return typeof did === 'string' || !did.permitted ? [] : unapproved(this.#active.limits, resource, did, []);
  }

  close(): void {
    this.#policy?.close();
  }
}

/** Counts them by group. */
export class CountedApprovals {
  readonly #groups = new Map<string, { newly: number; noLonger: number }>();

  add({ newly, noLonger }: ChangedApprovals): void {
    for (const group of newly) this.#of(group).newly += 1;
    for (const group of noLonger) this.#of(group).noLonger += 1;
  }

  all(): ApprovalCounts {
    return this.#groups;
  }

  #of(group: string): { newly: number; noLonger: number } {
    const counts = this.#groups.get(group) ?? { newly: 0, noLonger: 0 };
    this.#groups.set(group, counts);
    return counts;
  }
}

function changedGroups(before: readonly string[], after: readonly string[]): ChangedApprovals {
  return {
    newly: after.filter((group) => !before.includes(group)),
    noLonger: before.filter((group) => !after.includes(group)),
  };
}

function wantsApprovals({ policySet, limits }: Catalog): boolean {
  const byPolicy = policySet.policies.some(({ annotations }) => obligations(annotations).approvalGroup !== null);
  return byPolicy || (limits.approvals ?? []).length > 0;
}
