import { z } from 'zod';
import { approvalStates } from '../domain/approval.ts';
import { anything, approvalId, decisionId, grantId, guaranteed, taskId, time } from './answers.ts';
import { queueQuery, reason } from './queue-bodies.ts';
import { delivery } from './requests.ts';

// What approvers send and are answered, and what agents send to collect.

export const approvalPath = z.object({
  id: z.string().meta({ description: 'The approval’s id.', example: 'apr_0198c0de-7a11-7000-8000-0123456789ab' }),
});

export const approvalsQuery = z.strictObject({
  state: z.enum(approvalStates).optional(),
  task: taskId.optional(),
  limit: queueQuery.shape.limit,
  cursor: queueQuery.shape.cursor,
});

export const decideApprovalBody = z
  .strictObject({
    decision: z.enum(['approve', 'deny', 'withdraw'], 'must be approve, deny or withdraw'),
    reason: reason.meta({ description: 'Why, for the evidence.' }),
  })
  .meta({ id: 'DecideApproval' });

export const collectBody = z
  .strictObject({ delivery })
  .meta({ id: 'CollectGrant', description: '`delivery` as it was asked for with.' });

const word = z.strictObject({
  by: z.string(),
  as: z.array(z.string()).meta({ description: 'The groups that it counts for.' }),
  at: time,
  decision: z.enum(['approve', 'deny', 'withdraw']),
  reason: z.string(),
});

export const approvalView = z
  .strictObject({
    id: approvalId,
    state: z.enum(approvalStates),
    because: z.string().optional().meta({ description: 'Why it lapsed.' }),
    groups: z.array(z.string()).meta({ description: 'Somebody of each must approve it.' }),
    still_needed: z.array(z.string()).meta({ description: 'Those of which nobody has yet.' }),
    words: z.array(word).meta({ description: 'Who said what, in order.' }),
    requested_at: time,
    expires_at: time.meta({ description: 'Until when it can be decided; once approved, collected.' }),
    ended_at: time.optional(),
    grant_id: grantId,
    grant_state: z.string(),
    task_id: taskId,
    decision_id: decisionId,
    policies: z.array(z.string()).meta({ description: 'That permit it once it is approved.' }),
    revision: z.int(),
    workload: z.string().meta({ description: '`<source>:<subject>` of the agent.' }),
    subject: z.string().meta({ description: 'On whose behalf.' }),
    issuer: z.string().meta({ description: 'By whose word.' }),
    purpose: z.string(),
    phase: z.string().nullable(),
    task_not_after: time,
    above: z
      .array(z.strictObject({ task_id: taskId, workload: z.string(), subject: z.string(), issuer: z.string() }))
      .meta({ description: 'The tasks that it hangs on, the nearest first.' }),
    target: z.string(),
    entitlement: z.string(),
    params: anything,
    ttl_seconds: z.int().meta({ description: 'It lives no longer than this.' }),
    per_call: z.boolean().meta({ description: 'It is for one connection only.' }),
    justification: z.string().nullable(),
    sealed_to: z.string().nullable().meta({ description: 'Thumbprint of the key that it is handed over to.' }),
    guarantee: z.strictObject({ revocation: guaranteed, says: z.string() }),
    definition: z
      .strictObject({ entitlement: anything, target: anything })
      .meta({ description: 'By the catalog: what it is, with the provider’s own terms.' }),
    digest: z.string().meta({ description: 'SHA-256 of exactly what was asked: what is approved, and nothing else.' }),
  })
  .meta({ id: 'Approval', description: 'What a grant waits for, and all that whoever decides must know.' });

export const approvalsPageBody = z
  .strictObject({ items: z.array(approvalView), next_cursor: z.string().nullable() })
  .meta({ id: 'Approvals' });

export type ApprovalView = z.output<typeof approvalView>;
