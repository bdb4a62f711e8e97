/**
 * What the broker does that outlives it: each commit in the store, each call to a target, each word to the queue. A crash can fall
 * on either side of each, so each has a step on both sides, and `test/crash` ends the broker at every one of them.
 */
export const acts = [
  'spend-proof',
  'open',
  'delegate',
  'claim-task',
  'move-phase',
  'guarantee',
  'intend',
  'intend-alone',
  'replay',
  'deny',
  'mint',
  'activate',
  'ask-approval',
  'decide-approval',
  'withdraw-approval',
  'collect',
  'drop-ask',
  'lapse-approvals',
  'give-up',
  'decide-renewal',
  'renew',
  'extend',
  'end',
  'release',
  'evaluate',
  'apply',
  'publish',
  'decide-again',
  'fall-due',
  'claim',
  'beat',
  'fence',
  'verify-contained',
  'contain',
  'fail',
  'reap',
  'verify-clean',
  'clean',
  'release-claims',
  'wake-targets',
  'expire-tasks',
  'cry-overdue',
  'feed-alarms',
  'forget-proofs',
  'set-alarms',
  'retry',
  'write-off',
  'pause',
  'resume',
  'signal',
  'lapse-signals',
  'suspend-task',
  'resume-task',
  'kill',
  'lift',
  'confirm-kills',
  'ask-run',
  'check',
  'begin-session',
  'end-session',
  'request-runs',
  'claim-run',
  'compare',
  'forget-unknown',
  'finish-run',
  'end-changed',
  'end-cut-off',
  'take-hold',
  'keep-hold',
  'lose-hold',
  'tell-stranger',
  'notice-failover',
  'take-back',
  'fence-unrecorded',
  'tell-fenced',
  'tell-webhook',
  'test-webhook',
] as const;

export type StepName = `${(typeof acts)[number]}.${'before' | 'after'}`;

let hook: ((name: StepName) => void) | undefined;

/** Marks a place in the code. Does nothing but in the crash tests. */
export function step(name: StepName): void {
  hook?.(name);
}

/** For the crash tests: called at every step, it may end or stop this process. */
export function onStep(called: (name: StepName) => void): void {
  hook = called;
}
