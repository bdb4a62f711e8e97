import { z } from 'zod';
import { name } from '../catalog/names.ts';
import { signalKinds, signalValues } from '../domain/signal.ts';
import { problemBody, signalId, time } from './answers.ts';
import { isOneLine, queueQuery, reason } from './queue-bodies.ts';

// What sources of signals send, and what operators are shown of it.

const MOST_SIGNALS = 100;

/** Bytes: longer ones have no place in an index of the store. */
const LONGEST_NAME = 2_200;
const named = z
  .string()
  .min(1)
  .refine(isOneLine, 'must be one line of text')
  .refine((text) => Buffer.byteLength(text) <= LONGEST_NAME, `must be at most ${LONGEST_NAME} bytes`);

const moment = z.iso
  .datetime({ offset: true, error: 'must be a time like 2026-01-05T10:00:00Z' })
  .transform((at) => new Date(at))
  .meta({ type: 'string', format: 'date-time' });

const id = z
  .string()
  .regex(/^[\x21-\x7e]{1,200}$/, 'must be 1 to 200 visible ASCII characters')
  .meta({
    description: 'The source’s own. Said again with the same content it is answered again.',
    example: 'evt-4711',
  });
const occurredAt = moment.meta({ description: 'By the source’s clock. An older one never stands over a newer one.' });

const common = {
  id,
  occurred_at: occurredAt,
  expires_at: moment.optional().meta({ description: 'Until when it counts. Without it: until another one.' }),
  reason: reason.optional().meta({ description: 'Why, for whoever reads the evidence: one line.' }),
};

const workload = z.strictObject({
  workload: named
    .refine((text) => /^[^:\s]+:\S+$/.test(text), 'must be `<source>:<subject>`')
    .meta({ example: 'prod:spiffe://prod.example/agent/recon' }),
});
const user = z.strictObject({
  issuer: named.meta({ description: 'URL of a task issuer, or its name in trust.yaml.' }),
  user: named.meta({ description: 'On whose behalf, as that issuer names them.', example: 'user:dana' }),
});
const either = z.union([workload, user], 'must be {"workload": …} or {"issuer": …, "user": …}');
const scope = z.union(
  [z.literal('all'), z.strictObject({ environment: name }), z.strictObject({ target: name })],
  'must be "all", {"environment": …} or {"target": …}',
);
const which = named
  .refine((text) => text.length <= 200, 'must be at most 200 characters')
  .optional()
  .meta({ description: 'The source’s name of it, where several may stand on one scope at once.', example: 'INC-4711' });

const words = [
  z.strictObject({
    kind: z.literal('workload_risk'),
    ...common,
    subject: workload,
    level: z.enum(signalValues.workload_risk),
  }),
  z.strictObject({ kind: z.literal('incident'), ...common, scope, name: which, state: z.enum(signalValues.incident) }),
  z.strictObject({
    kind: z.literal('change_freeze'),
    ...common,
    scope,
    name: which,
    state: z.enum(signalValues.change_freeze),
  }),
  z.strictObject({ kind: z.literal('device'), ...common, subject: either, state: z.enum(signalValues.device) }),
  z.strictObject({ kind: z.literal('user'), ...common, subject: user, state: z.enum(signalValues.user) }),
  z.strictObject({ kind: z.literal('heartbeat'), id, occurred_at: occurredAt }),
] as const;

/** One signal, or several: each of those is answered in its place. */
export const signalsBody = z
  .discriminatedUnion('kind', [
    ...words,
    z.strictObject({
      kind: z.literal('batch'),
      signals: z.array(z.discriminatedUnion('kind', words)).min(1).max(MOST_SIGNALS),
    }),
  ])
  .meta({ id: 'SendSignals' });

const taken = z.strictObject({
  id: z.string(),
  outcome: z
    .enum(['taken', 'superseded'])
    .meta({ description: '`superseded`: a newer one of this source stood already.' }),
  received_at: time,
});
export const takenBody = z
  .union([
    taken,
    z.strictObject({
      signals: z.array(z.union([taken, z.strictObject({ id: z.string(), problem: problemBody })])),
    }),
  ])
  .meta({ id: 'TakenSignals' });

export const signalsQuery = z.strictObject({
  standing: z
    .enum(['true', 'false'])
    .transform((word) => word === 'true')
    .optional()
    .meta({ type: 'boolean', description: 'Only those that count now, or only the others.' }),
  limit: queueQuery.shape.limit,
  cursor: queueQuery.shape.cursor,
});

export const leftSuspended = z.array(z.strictObject({ source: z.string(), kind: z.string(), tasks: z.int() })).meta({
  description:
    'Tasks that sources have suspended which are not in the catalog any more, or not for that kind: until an operator resumes them.',
});

export const signalsPageBody = z
  .strictObject({
    items: z.array(
      z.strictObject({
        id: signalId,
        source: z.string(),
        source_id: z.string().meta({ description: 'The source’s own id.' }),
        kind: z.enum(signalKinds),
        subject: z.string().meta({ example: 'workload:prod:spiffe://prod.example/agent/recon' }),
        name: z.string().optional(),
        value: z.string(),
        reason: z.string().optional(),
        occurred_at: time,
        expires_at: time.optional(),
        received_at: time,
        outcome: z.enum(['taken', 'superseded']),
        standing: z.boolean(),
      }),
    ),
    next_cursor: z.string().nullable(),
    sources: z.array(
      z.strictObject({
        name: z.string(),
        kinds: z.array(z.enum(signalKinds)),
        required: z.boolean(),
        max_age_seconds: z.int(),
        heard_at: time.nullable().meta({ description: 'By its own time; null: never.' }),
        stale: z.boolean(),
      }),
    ),
    left_suspended: leftSuspended,
  })
  .meta({ id: 'Signals' });

export type SignalsPageBody = z.output<typeof signalsPageBody>;
export type SentSignals = z.output<typeof signalsBody>;
