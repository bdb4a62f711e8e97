import type { Machine } from './machine.ts';

export const approvalStates = ['pending', 'approved', 'denied', 'lapsed', 'withdrawn', 'collected'] as const;
export type ApprovalState = (typeof approvalStates)[number];

/** What a grant waits for that policy wants approved. */
export const approvalMachine: Machine<ApprovalState> = {
  name: 'approval',
  births: ['pending'],
  transitions: {
    pending: ['approved', 'denied', 'lapsed'],
    approved: ['collected', 'withdrawn', 'lapsed'],
    denied: [],
    lapsed: [],
    withdrawn: [],
    // The grant that came of it ends then.
    collected: ['withdrawn'],
  },
};

/** Why nothing came of it, though nobody refused it. */
export type LapsedBecause =
  | 'not_decided_in_time'
  | 'not_collected_in_time'
  | 'task_ended'
  | 'killed'
  | 'released'
  /** What would be given is not what was approved any more. */
  | 'stale'
  /** Its Idempotency-Key stands for another grant now. */
  | 'replaced';
