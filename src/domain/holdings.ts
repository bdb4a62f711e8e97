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
  /** The tree's live grants of each entitlement. */
  readonly held: Readonly<Record<string, number>>;
  /** Targets on which the tree ever had a grant. */
  readonly touched: readonly string[];
}
