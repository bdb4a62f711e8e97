/** Evaluations: all that were asked, and those that were permitted. */
export interface Uses {
  readonly tree: { readonly asked: number; readonly permitted: number };
  readonly own: { readonly asked: number; readonly permitted: number };
}

export const noUses: Uses = { tree: { asked: 0, permitted: 0 }, own: { asked: 0, permitted: 0 } };

/** What a task and its tree have and had, as the store counts it: `mayfly.task_states`. Live is what is not contained yet. */
export interface Holdings {
  /** Of the whole tree. */
  readonly live_grants: number;
  /** Of those, on sinks of confidential or restricted sensitivity. */
  readonly sensitive_sinks: number;
  /** That the tree ever had. */
  readonly grants: number;
  /** Of the task alone. */
  readonly own_live_grants: number;
  readonly own_grants: number;
  /** Of each entitlement: all that the tree ever had, and the task alone. */
  readonly given: Readonly<Record<string, readonly [tree: number, own: number]>>;
  /** How often they were asked about before a call. */
  readonly uses: Uses;
  /** The tree's live grants of each entitlement. */
  readonly held: Readonly<Record<string, number>>;
  /** Targets on which the tree ever had a grant. */
  readonly touched: readonly string[];
}
