import { z } from 'zod';
import { anything, decisionId, grantId, taskId, time } from './answers.ts';
import { approvalView } from './approval-bodies.ts';
import { queueQuery } from './queue-bodies.ts';

// What operators ask about decisions, and what they are answered.

export const decisionPath = z.object({
  id: z.string().meta({ description: 'The decision’s id.', example: 'dec_0198c0de-7a11-7000-8000-0123456789ab' }),
});

export const decisionsQuery = z.strictObject({
  task: taskId.optional(),
  resource: z.string().min(1).max(200).optional().meta({ description: 'The entitlement.' }),
  decision: z.enum(['permit', 'deny']).optional(),
  limit: queueQuery.shape.limit,
  cursor: queueQuery.shape.cursor,
});

const made = z.strictObject({
  id: decisionId,
  task_id: taskId.optional().meta({ description: 'Absent where it was about no task.' }),
  grant_id: grantId.optional().meta({ description: 'That came of it, or that it was about.' }),
  action: z.string().meta({ description: '`issue`, `renew` or `retain`.' }),
  resource: z.string(),
  decision: z.enum(['permit', 'deny']).meta({ description: 'Of policy.' }),
  refusal: z.string().optional().meta({ description: 'Why nothing came of it all the same: the problem’s code.' }),
  limit: z.string().optional().meta({ description: 'The rule of limits.yaml that was reached.' }),
  policies: z.array(z.string()).meta({ description: 'Those that determined it, by `@id`.' }),
  errors: z.array(z.string()),
  max_ttl_seconds: z.int().optional(),
  revision: z.int(),
  decided_at: time,
  replay: z.enum(['identical', 'different', 'impossible']).meta({
    description:
      'Decided again, from the stored inputs by the policies of its revision. `impossible`: no policy decided it, or that revision does not hold by the rules of this release.',
  }),
});

export const decisionsPageBody = z
  .strictObject({ items: z.array(made), next_cursor: z.string().nullable() })
  .meta({ id: 'Decisions' });

export const explainedBody = made
  .extend({
    catalog: z.strictObject({ digest: z.string(), applied_by: z.string(), applied_at: time }),
    determined_by: z
      .array(z.strictObject({ id: z.string(), file: z.string(), line: z.int(), text: z.string() }))
      .meta({ description: 'The policies as they stood in that revision, with what they demand.' }),
    approval: approvalView
      .pick({ id: true, state: true, because: true, groups: true, words: true, requested_at: true })
      .optional()
      .meta({ description: 'What the grant waited for: who approved or denied it, when and why.' }),
    inputs: anything.meta({ description: 'All that policy knew: principal, resource, context, entities.' }),
  })
  .meta({ id: 'ExplainedDecision' });

export type DecisionView = z.output<typeof made>;
export type ExplainedBody = z.output<typeof explainedBody>;
