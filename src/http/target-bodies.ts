import { z } from 'zod';
import { time } from './answers.ts';
import { pauseView, queueQuery } from './queue-bodies.ts';

// What operators are answered about targets.

export const targetsQuery = z.strictObject({
  limit: queueQuery.shape.limit,
  cursor: z
    .string()
    .regex(/^[A-Za-z0-9_-]{1,200}$/, 'must be a `next_cursor` that was answered before')
    .optional()
    .meta({ description: '`next_cursor` of the page before.' }),
});

const result = z
  .strictObject({
    outcome: z
      .enum(['done', 'failed', 'stranger', 'unlisted'])
      .meta({ description: '`stranger`: another broker holds the target.' }),
    says: z.string().meta({ description: 'Why it was not done.' }),
    listed: z.int().meta({ description: 'Credentials that bear our mark.' }),
    orphans: z.int().meta({ description: 'Unknown here: revoked now.' }),
    waiting: z.int().meta({ description: 'Unknown here, and perhaps on their way.' }),
    lost: z.int().meta({ description: 'Alive here, gone there.' }),
    returned: z.int().meta({ description: 'Gone once, and back: revoked again.' }),
    drifted: z.int().meta({ description: 'Not what was granted.' }),
    unverified: z.int().meta({ description: 'Of our form and not verifiably ours: left alone.' }),
    // A run from before an upgrade says nothing of these.
    changed: z.int().optional().meta({ description: 'Their credentials were changed in the target: ended now.' }),
    held: z.int().optional().meta({ description: 'The same, and too many at once to be believed: left alone.' }),
    uninspected: z.int().optional().meta({ description: 'The target did not say what they can do there.' }),
  })
  .meta({ id: 'ReconcileResult' });

const reconciliation = z
  .strictObject({
    asked_at: time.optional(),
    started_at: time.optional().meta({ description: 'Of the last run, or of the one under way.' }),
    finished_at: time.optional(),
    worker: z.string().optional().meta({ description: 'Who has it in hand now.' }),
    next_at: time,
    result: result.optional().meta({ description: 'Of the last run that is over.' }),
  })
  .meta({ id: 'Reconciliation', description: 'Where the comparing of a target with the store stands.' });

export const askedRunBody = z
  .strictObject({
    target: z.string(),
    asked_at: time,
    state: z.enum(['asked', 'running', 'over']).meta({ description: 'Of the run that was asked for.' }),
    says: z.string().meta({ description: 'What goes on, in a sentence.' }),
    reconciliation,
  })
  .meta({ id: 'AskedReconciliation' });

export const checkedBody = z
  .strictObject({
    target: z.string(),
    ok: z.boolean(),
    says: z.string().meta({ description: 'What came of it, in a sentence.' }),
    steps: z.array(
      z.strictObject({
        entitlement: z.string(),
        step: z.string(),
        ok: z.boolean(),
        warns: z.literal(true).optional().meta({ description: 'It is well, and somebody should look at it.' }),
        says: z.string(),
      }),
    ),
  })
  .meta({ id: 'TargetCheck' });

export const targetsPageBody = z
  .strictObject({
    items: z.array(
      z
        .strictObject({
          name: z.string(),
          catalog: z
            .strictObject({
              provider: z.string(),
              environment: z.string(),
              owner: z.string(),
              sensitivity: z.string(),
              labels: z.record(z.string(), z.string()),
            })
            .nullable()
            .meta({ description: 'Null: it was dropped from the catalog and is still paused.' }),
          pause: pauseView.nullable(),
          reconciliation: reconciliation.optional(),
        })
        .meta({ id: 'Target' }),
    ),
    next_cursor: z.string().nullable(),
  })
  .meta({ id: 'Targets' });

export type AskedRunBody = z.output<typeof askedRunBody>;
export type CheckedBody = z.output<typeof checkedBody>;
export type TargetsPageBody = z.output<typeof targetsPageBody>;
export type ReconciliationBody = z.output<typeof reconciliation>;
