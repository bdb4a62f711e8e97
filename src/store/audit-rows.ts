import { leafHash } from '../audit/leaf.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { type EventId, uuidv7 } from '../domain/ids.ts';

/** Events as rows of `audit_events`, for `jsonb_populate_recordset`, each with the hash of its own content. */
export function auditRows(events: readonly AuditEvent[], now: Date): readonly Readonly<Record<string, unknown>>[] {
  // Sorted, since all events of a transaction have its time: their order is then that of their ids.
  const ids = events.map(() => uuidv7(now.getTime()) as EventId).sort();
  return events.map((event, index) => {
    const row = {
      id: ids[index],
      ts: now.toISOString(),
      type: event.type,
      agent: event.agent,
      subject: event.subject,
      resource: event.resource,
      action: event.action,
      decision: event.decision,
      correlation_id: event.correlationId,
      posture: event.posture,
      cause: event.cause,
      task_id: event.taskId,
      grant_id: event.grantId,
      decision_id: event.decisionId,
      txn: event.txn,
      policy_digest: event.policyDigest,
      payload: event.payload,
    };
    return { ...row, leaf_hash: `\\x${leafHash(row).toString('hex')}` };
  });
}
