import { z } from 'zod';
import { grantId, guaranteed, taskId, time } from './answers.ts';
import { queueQuery } from './queue-bodies.ts';

// What operators ask about blast radius, and what they are answered.

const MOST_TASKS = 50;
const limitFault = `must be a whole number from 1 to ${MOST_TASKS}`;

export const reachQuery = z.strictObject({
  limit: z
    .string()
    .regex(/^[1-9]\d?$/, limitFault)
    .transform(Number)
    .refine((items) => items <= MOST_TASKS, limitFault)
    .default(20)
    .meta({ type: 'integer', minimum: 1, maximum: MOST_TASKS }),
  cursor: queueQuery.shape.cursor,
});

export const reachBody = z
  .strictObject({
    of: z.enum(['workload', 'task', 'entitlement']),
    id: z.string(),
    revision: z.int().meta({ description: 'Of the catalog that decided what could be asked for.' }),
    tasks: z.int().meta({ description: 'All of them, whatever the page.' }),
    grants: z.int().meta({ description: 'All that are not yet contained.' }),
    items: z.array(
      z.strictObject({
        task_id: taskId,
        workload: z.string(),
        task: z
          .strictObject({
            state: z.enum(['offered', 'active', 'suspended', 'completed', 'cancelled', 'expired', 'revoked']),
            purpose: z.string(),
            phase: z.string().nullable(),
            not_after: time,
            parent_id: taskId.nullable(),
          })
          .optional()
          .meta({
            description: 'Absent where it is over, or only its grants are in scope: then nothing can be asked for.',
          }),
        holds: z
          .strictObject({
            total: z.int(),
            items: z.array(
              z.strictObject({
                grant_id: grantId,
                entitlement: z.string(),
                target: z.string(),
                state: z.enum(['minting', 'active', 'revoking']),
                until: time,
                guarantee: guaranteed,
                used_since: time.nullable().meta({ description: 'Begin of the youngest session that was seen.' }),
              }),
            ),
          })
          .meta({ description: 'What is not yet contained.' }),
        could: z
          .array(
            z.strictObject({
              entitlement: z.string(),
              answer: z
                .enum(['permitted', 'denied', 'unknown'])
                .meta({ description: '`unknown`: the target does not say what it can hold.' }),
              because: z.string().nullable().meta({ description: 'What stands in its way.' }),
              reasons: z.array(z.string()),
              policies: z.array(z.string()),
              obligations: z.array(z.string()).meta({
                description: 'What is demanded with a permit: `per_call`, `sealed_delivery`, `approval:<group>`.',
              }),
              ttl_seconds: z.int().nullable().meta({ description: 'How long it would live.' }),
            }),
          )
          .meta({ description: 'Each entitlement of the task, decided now. Limits beyond its tree are not counted.' }),
      }),
    ),
    next_cursor: z.string().nullable(),
  })
  .meta({ id: 'Reach' });
export type ReachBody = z.output<typeof reachBody>;
