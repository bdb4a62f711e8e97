import { z } from 'zod';
import { entitlementName, name } from '../catalog/names.ts';
import { killScopes } from '../domain/kill.ts';
import { killId, taskId, time } from './answers.ts';
import { isOneLine, queueQuery, reason } from './queue-bodies.ts';

// What operators send about kills, and what they are answered.

/** Bytes: longer ones have no place in an index of the store. No source gives a subject, and no catalog an issuer, that is as long. */
const LONGEST_NAME = 2_200;
const named = z
  .string()
  .min(1)
  .refine(isOneLine, 'must be one line of text')
  .refine((text) => Buffer.byteLength(text) <= LONGEST_NAME, `must be at most ${LONGEST_NAME} bytes`);

const agent = named
  .refine((id) => /^[^:]+:./.test(id), 'must be `<source>:<subject>`')
  .meta({
    description: '`<source>:<subject>` of the workload.',
    example: 'prod:spiffe://prod.example/agent/recon',
  });
const issuer = named.meta({ description: 'URL of the task issuer, or its name in trust.yaml.' });

/** A strict object for each scope: `all` names nothing, every other one something. */
export const killBody = z
  .discriminatedUnion('scope', [
    z.strictObject({ scope: z.literal('agent'), id: agent, reason }),
    z.strictObject({ scope: z.literal('task'), id: taskId, reason }),
    z.strictObject({ scope: z.literal('issuer'), id: issuer, reason }),
    z.strictObject({ scope: z.literal('entitlement'), id: entitlementName, reason }),
    z.strictObject({ scope: z.literal('target'), id: name, reason }),
    z.strictObject({ scope: z.literal('all'), reason }),
  ])
  .meta({ id: 'RaiseKill' });

export const confirmBody = z.strictObject({ reason }).meta({ id: 'ConfirmKills' });

export const confirmedBody = z
  .object({ confirmed: z.literal(true) })
  .meta({ id: 'KillsConfirmed', description: 'The kills that stand are all that shall.' });

export const liftBody = z
  .strictObject({ reason: reason.optional().meta({ description: 'Why it may go on.' }) })
  .meta({ id: 'LiftKill' });

export const killPath = z.object({
  id: z.string().meta({ description: 'The kill’s id.', example: 'kill_0198c0de-7a11-7000-8000-0123456789ab' }),
});

export const killsQuery = z.strictObject({
  standing: z
    .enum(['true', 'false'])
    .transform((word) => word === 'true')
    .optional()
    .meta({ type: 'boolean', description: 'Only those that stand, or only those that were lifted.' }),
  limit: queueQuery.shape.limit,
  cursor: queueQuery.shape.cursor,
});

export const killView = z
  .strictObject({
    id: killId,
    scope: z.enum(killScopes),
    subject: z.string().nullable().meta({ description: 'What is stopped; null for `all`.' }),
    standing: z.boolean(),
    reason: z.string(),
    by: z.string(),
    since: time,
    ended: z
      .strictObject({
        tasks: z.int(),
        grants: z.int(),
        hastened: z.int().meta({ description: 'Revocations that were owed before: tried now, on paused targets too.' }),
      })
      .meta({ description: 'What it ended when it was raised.' }),
    lifted: z.strictObject({ at: time, by: z.string(), reason: z.string().optional() }).optional(),
  })
  .meta({ id: 'Kill', description: 'An operator’s word that stops something until it is lifted.' });

export const killsPageBody = z
  .strictObject({ items: z.array(killView), next_cursor: z.string().nullable() })
  .meta({ id: 'Kills' });

export type KillView = z.output<typeof killView>;
