import { z } from 'zod';
import { fourEyesOperations } from '../domain/four-eyes.ts';
import type { AwaitsSecond } from '../store/second-person.ts';
import { time } from './answers.ts';
import type { Answer } from './write.ts';

/** What an operator is answered who is the first of two. */
export const awaitingBody = z
  .strictObject({
    status: z.literal('awaits_second_person'),
    operation: z.enum(fourEyesOperations),
    resource: z.string(),
    digest: z.string().meta({ description: 'SHA-256 of exactly what was asked, in hex.' }),
    asked_by: z.string(),
    asked_at: time,
    expires_at: time,
  })
  .meta({ id: 'AwaitsSecondPerson' });
export type AwaitingBody = z.output<typeof awaitingBody>;

/** Of an operation that may take two. */
export const awaitingAnswer = {
  says: 'Nothing was done: another operator has to ask for the very same until then.',
  schema: awaitingBody,
} as const;

export function answerOfAwaiting({ operation, resource, digest, person, askedAt, expiresAt }: AwaitsSecond): Answer {
  const body: AwaitingBody = {
    status: 'awaits_second_person',
    ...{ operation, resource, digest: digest.toString('hex'), asked_by: person.name },
    ...{ asked_at: askedAt.toISOString(), expires_at: expiresAt.toISOString() },
  };
  return { status: 202, body };
}
