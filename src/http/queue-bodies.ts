import { z } from 'zod';
import { name } from '../catalog/names.ts';
import {
  anything,
  endedBy,
  eventBody,
  grantId,
  guaranteed,
  revocationId,
  revocationState,
  taskId,
  time,
} from './answers.ts';

// What operators send about the queue of revocations, and what they are answered.

const MOST_ITEMS = 200;
const limitFault = `must be a whole number from 1 to ${MOST_ITEMS}`;

const queueState = z.enum(['scheduled', 'due', 'waiting', 'running', 'contained', 'clean', 'written_off']).meta({
  description: '`due`: may be tried now. `waiting`: due, and waits for its next try.',
});
/** No flag on the pattern of a schema: OpenAPI knows none. */
export const isOneLine = (said: string) => /^[^\p{C}\p{Zl}\p{Zp}]*$/u.test(said) && /\S/.test(said);
export const reason = z.string().min(1).max(1000).refine(isOneLine, 'must be one line of text').meta({
  description: 'Why, for whoever reads the evidence: one line.',
  example: 'The server was scrapped; its disks are destroyed (CHG-4711).',
});

export const revocationPath = z.object({
  id: z.string().meta({ description: 'The revocation’s id.', example: 'rev_0198c0de-7a11-7000-8000-0123456789ab' }),
});
export const targetPath = z.object({
  id: z.string().meta({ description: 'The target’s name in the catalog.', example: 'ledger-db' }),
});

export const queueQuery = z.strictObject({
  state: queueState.optional(),
  target: name.optional(),
  ended_by: endedBy.optional().meta({ description: 'Why the grant ended.' }),
  task: taskId.optional(),
  grant: grantId.optional(),
  overdue: z
    .enum(['true', 'false'])
    .transform((word) => word === 'true')
    .optional()
    .meta({ type: 'boolean', description: 'Not contained in time, and still not.' }),
  since: z.iso
    .datetime({ offset: true })
    .transform((at) => new Date(at))
    .optional()
    .meta({ type: 'string', format: 'date-time', description: 'Due at this time or later.' }),
  limit: z
    .string()
    .regex(/^[1-9]\d{0,2}$/, limitFault)
    .transform(Number)
    .refine((items) => items <= MOST_ITEMS, limitFault)
    .default(50)
    .meta({ type: 'integer', minimum: 1, maximum: MOST_ITEMS }),
  cursor: z
    .string()
    .regex(/^[A-Za-z0-9_-]{22}$/, 'must be a `next_cursor` that was answered before')
    .optional()
    .meta({ description: '`next_cursor` of the page before.' }),
});

export const writeOffBody = z.strictObject({ reason }).meta({ id: 'WriteOff' });
export const pauseBody = z
  .strictObject({
    reason,
    deadlines: z.literal('also').optional().meta({
      description:
        'Hold what has reached its deadline too. DANGER: what the target does not expire by itself then outlives its deadline.',
    }),
  })
  .meta({ id: 'PauseTarget' });

const deadlines = z
  .enum(['run', 'held'])
  .meta({ description: '`run`: what reaches its deadline is ended all the same. `held`: nothing is ended.' });
export const pauseView = z
  .strictObject({ since: time, by: z.string(), reason: z.string(), deadlines })
  .meta({ id: 'Pause' });

const queuedBody = z
  .strictObject({
    id: revocationId,
    grant_id: grantId,
    task_id: taskId,
    target: z.string(),
    entitlement: z.string(),
    workload: z.string().meta({ description: '`<source>:<subject>` of the agent.' }),
    state: revocationState,
    grant_state: z.enum(['pending_approval', 'approved', 'denied', 'minting', 'active', 'revoking', 'revoked']),
    ended_by: endedBy.optional(),
    guarantee: guaranteed,
    deadline: time.meta({ description: 'Of the grant.' }),
    due_at: time,
    native_expiry_at: time.optional().meta({
      description: 'Its target can only let it expire: it waits for this, and is not late before.',
    }),
    next_try_at: time.optional().meta({ description: 'Not tried before.' }),
    attempts: z.int(),
    last_error: z.enum(['retryable', 'denied', 'misconfigured', 'gone']).optional(),
    last_error_at: time.optional(),
    overdue_since: time.optional().meta({ description: 'When its objective was missed.' }),
    held_by: z
      .strictObject({ worker: z.string(), since: time.optional(), until: time })
      .optional()
      .meta({ description: 'Who works on it. Unless the worker extends it, its claim ends at `until`.' }),
    evidence: anything.optional(),
    residual: z.string().optional().meta({ description: 'What the end left: what was read can not be unread.' }),
    contained_at: time.optional(),
    clean_at: time.optional(),
    written_off: z.strictObject({ at: time, by: z.string(), reason: z.string() }).optional(),
  })
  .meta({ id: 'Revocation', description: 'The obligation to end a grant, as operators see it.' });

export const storyBody = z
  .strictObject({
    revocation: queuedBody,
    events: z.array(eventBody).meta({ description: 'What was done about it, oldest first.' }),
    pause: pauseView.optional().meta({ description: 'Its target is paused.' }),
  })
  .meta({ id: 'RevocationStory' });

const targetCounts = z
  .strictObject({
    target: z.string(),
    due: z.int(),
    waiting: z.int(),
    running: z.int(),
    contained: z.int().meta({ description: 'Contained, not yet clean.' }),
    written_off: z.int(),
    overdue: z.int(),
    oldest_overdue_seconds: z.number(),
    residual: z.int().meta({ description: 'Ended, and their values may be known for ever (guarantee `irrevocable`).' }),
    pause: pauseView.optional().meta({ description: 'It is paused.' }),
  })
  .meta({ id: 'TargetCounts' });

export const queuePageBody = z
  .strictObject({
    items: z.array(queuedBody),
    next_cursor: z.string().nullable(),
    counts: z.array(targetCounts).meta({ description: 'Of the whole queue, whatever was asked for.' }),
  })
  .meta({ id: 'RevocationQueue' });

export const targetControlBody = z
  .strictObject({
    target: z.string(),
    pause: pauseView.nullable(),
    says: z.string().meta({ description: 'What goes on there now, in a sentence.' }),
  })
  .meta({ id: 'TargetControl' });

export type QueuedBody = z.output<typeof queuedBody>;
export type StoryBody = z.output<typeof storyBody>;
export type TargetCounts = z.output<typeof targetCounts>;
export type QueuePageBody = z.output<typeof queuePageBody>;
export type TargetControlBody = z.output<typeof targetControlBody>;
export type PauseBody = z.output<typeof pauseView>;
