import { listApprovals, readApproval } from '../broker/approvals.ts';
import { authenticate, nextNonce, spendProof } from '../broker/callers.ts';
import { claimTask } from '../broker/claim-task.ts';
import { checkTarget } from '../broker/check-target.ts';
import { collectGrant } from '../broker/collect-grant.ts';
import { decideApproval } from '../broker/decide-approval.ts';
import { delegateTask } from '../broker/delegate-task.ts';
import type { BrokerDeps } from '../broker/deps.ts';
import { endTask } from '../broker/end-task.ts';
import { evaluate } from '../broker/evaluate.ts';
import { explainDecision, replayDecisions } from '../broker/explain-decision.ts';
import { explainToken } from '../broker/explain-token.ts';
import { issueGrant } from '../broker/issue-grant.ts';
import { confirmKills } from '../broker/confirm-kills.ts';
import { liftKill, raiseKill } from '../broker/kill.ts';
import { listKills } from '../broker/list-kills.ts';
import { listTargets } from '../broker/list-targets.ts';
import { listWebhooks } from '../broker/list-webhooks.ts';
import { openTask } from '../broker/open-task.ts';
import { retryRevocation, writeOffRevocation } from '../broker/operate-revocation.ts';
import { beginSession, callerOfSession, endSession } from '../broker/operator-session.ts';
import { pauseTarget, resumeTarget } from '../broker/pause-target.ts';
import { readGrant, readTask, readTimeline, viewTask, waitContained, waitUntil } from '../broker/read.ts';
import { readQueuePage, readRevocation, tellRevocation } from '../broker/read-queue.ts';
import { reconcileTarget } from '../broker/reconcile-target.ts';
import { releaseGrant, takeBackUndelivered } from '../broker/release-grant.ts';
import { readCatalog } from '../broker/read-catalog.ts';
import { readReach } from '../broker/reach.ts';
import { renewGrant } from '../broker/renew-grant.ts';
import { listSignals } from '../broker/list-signals.ts';
import { resumeTask, suspendTask } from '../broker/suspend-task.ts';
import { replaceCatalog } from '../broker/replace-catalog.ts';
import { takeEvent } from '../broker/take-event.ts';
import { withdrawApproval } from '../broker/withdraw-approval.ts';
import { takeSignals } from '../broker/take-signals.ts';
import { testWebhook } from '../broker/test-webhook.ts';
import { underOneRevision } from '../broker/revision.ts';
import { checkProposal, diffProposal } from '../broker/what-if.ts';
import type { Config } from '../config.ts';
import type { Metrics } from '../metrics.ts';
import type { SourceSeen } from '../metrics/signals.ts';
import type { ApprovalsSeen } from '../store/approvals.ts';
import type { DriftSeen } from '../store/drift.ts';
import type { Queue } from '../store/revocations.ts';
import type { WebhookState } from '../store/webhooks.ts';
import type { LimitSettings } from './limits.ts';
import type { Logger } from './log.ts';

/** What the routes call. A test may put others in their place. */
export const useCases = {
  authenticate,
  nextNonce,
  spendProof,
  openTask,
  delegateTask,
  claimTask,
  takeEvent,
  takeSignals,
  listSignals,
  suspendTask,
  resumeTask,
  issueGrant,
  collectGrant,
  renewGrant,
  releaseGrant,
  evaluate,
  takeBackUndelivered,
  endTask,
  readTask,
  viewTask,
  readGrant,
  readTimeline,
  waitContained,
  waitUntil,
  underOneRevision,
  readQueuePage,
  readRevocation,
  tellRevocation,
  retryRevocation,
  writeOffRevocation,
  pauseTarget,
  resumeTarget,
  listApprovals,
  readApproval,
  decideApproval,
  withdrawApproval,
  raiseKill,
  liftKill,
  confirmKills,
  listKills,
  listTargets,
  listWebhooks,
  testWebhook,
  readCatalog,
  checkProposal,
  diffProposal,
  replaceCatalog,
  readReach,
  reconcileTarget,
  checkTarget,
  explainDecision,
  replayDecisions,
  explainToken,
  beginSession,
  endSession,
  callerOfSession,
};
export type UseCases = typeof useCases;

/** One part that must work before callers are sent here. */
export interface ReadyPart {
  readonly part: string;
  readonly ok: boolean;
  /** Why not, in a sentence that a stranger may read. */
  readonly says?: string;
}

/** What the routes count, and how it is read. */
export type HttpMetrics = Pick<Metrics, 'answered' | 'refused' | 'build' | 'scrape'>;

export interface HttpDeps {
  readonly broker: BrokerDeps;
  readonly config: Pick<Config, 'public_url' | 'trusted_proxies'> & LimitSettings;
  readonly readiness: () => Promise<readonly ReadyPart[]>;
  readonly metrics: HttpMetrics;
  /** The queue of revocations as it is shown at a scrape. */
  readonly queue: () => Promise<Queue>;
  /** What is still to be decided again, as it is shown at a scrape. */
  readonly drift: () => Promise<DriftSeen>;
  /** How fresh the sources of signals are, as it is shown at a scrape. */
  readonly signals: () => Promise<readonly SourceSeen[]>;
  /** How the webhooks fare, as it is shown at a scrape. */
  readonly webhooks: () => Promise<readonly WebhookState[]>;
  /** What waits for an approval, as it is shown at a scrape. */
  readonly approvals: () => Promise<ApprovalsSeen>;
  readonly sweepAge: () => number;
  readonly log: Logger;
  /** True from the moment on that the broker wants to stop: connections are not kept alive any more. */
  readonly draining: () => boolean;
  readonly useCases?: UseCases;
}
