import type { DecisionId, GrantId, TaskId } from './ids.ts';

/**
 * What can stand in the evidence. Named `<subject>.<what happened>`; a type that nothing emits is a defect.
 */
export type AuditEventType =
  | 'task.opened'
  | 'task.replayed'
  | 'task.offered'
  | 'task.claimed'
  | 'task.moved'
  | 'task.completed'
  | 'task.cancelled'
  | 'task.expired'
  | 'task.revoked'
  | 'decision.made'
  | 'grant.intended'
  | 'grant.activated'
  | 'grant.mint_failed'
  | 'grant.renewed'
  | 'grant.ended'
  | 'revocation.attempted'
  | 'revocation.contained'
  | 'revocation.clean'
  | 'revocation.overdue'
  | 'revocation.claim_lost'
  | 'revocation.retried'
  | 'revocation.written_off'
  | 'target.breaker'
  | 'target.paused'
  | 'target.resumed'
  | 'target.reconcile_asked'
  | 'target.checked'
  | 'revocation.returned'
  | 'grant.orphaned'
  | 'grant.lost'
  | 'grant.drifted'
  | 'grant.used'
  | 'use.evaluated'
  | 'target.reconciled'
  | 'target.held_elsewhere'
  | 'target.adopted'
  | 'target.fenced_unrecorded'
  | 'target.cut_off'
  | 'store.failed_over'
  | 'approval.requested'
  | 'approval.approved'
  | 'approval.denied'
  | 'approval.withdrawn'
  | 'approval.lapsed'
  | 'task.suspended'
  | 'task.resumed'
  | 'signal.received'
  | 'signal.lapsed'
  | 'kill.raised'
  | 'kill.lifted'
  | 'kill.confirmed'
  | 'operator.signed_in'
  | 'operator.signed_out'
  | 'catalog.applied'
  | 'catalog.guard_overridden'
  | 'operation.awaited'
  | 'revocation.reopened'
  | 'webhook.tested';

/**
 * One row of evidence. The first seven groups are the minimum fields of the field's drafts (agent, delegated
 * subject, resource or tool, action and decision, time and correlation, posture, cause of revocation): none is
 * ever null; where one does not apply it says `none`.
 */
export interface AuditEvent {
  readonly type: AuditEventType;
  /** `<source>:<subject>` of the workload, or `none`. */
  readonly agent: string;
  /** On whose behalf, or `none`; `self` for an autonomous task. */
  readonly subject: string;
  /** Entitlement, target or `catalog`. */
  readonly resource: string;
  readonly action: string;
  readonly decision: 'permit' | 'deny' | 'none';
  /** Request id of the HTTP call, or the worker's claim. */
  readonly correlationId: string;
  readonly posture: string;
  /** Why access ended, or `none`. */
  readonly cause: string;
  readonly taskId: TaskId | null;
  readonly grantId: GrantId | null;
  readonly decisionId: DecisionId | null;
  readonly txn: string | null;
  /** Digest of the catalog revision in force, or `none`. */
  readonly policyDigest: string;
  /** JSON without secrets; numbers within 2^53, no undefined. */
  readonly payload: Readonly<Record<string, unknown>>;
}
