import { createHash } from 'node:crypto';
import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import { parseWireId, type TaskId } from '../domain/ids.ts';
import type { JsonObject } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import { requestRefusals } from './refusals.ts';
import { findIssuer, type SignedToken, verifySigned } from './signed-token.ts';
import { requestTimesSchema } from './task-claims.ts';
import { read, requireAlive, signedByIssuer } from './task-request.ts';
import { printable, requireAudience } from './token-claims.ts';
import type { TaskIssuer } from '../catalog/types.ts';
import type { TaskEvent, VerifyContext } from './types.ts';

const taskEvent = signedByIssuer('agent-task-event+jwt');

const common = {
  jti: printable(200),
  task_id: z.string().transform((text, context): TaskId => {
    const id = parseWireId('task', text);
    if (id === undefined) context.addIssue({ code: 'custom', message: 'must be our id of a task' });
    return id ?? z.NEVER;
  }),
  reason: printable(500).optional(),
};

/** DESIGN §4, Events. Unknown claims are ignored. */
const eventClaimsSchema = z.discriminatedUnion('op', [
  z.object({ op: z.literal(['complete', 'cancel']), ...common }),
  z.object({ op: z.literal('phase'), phase: printable(200), ...common }),
]);

/**
 * What an issuer says of a task later: verified like a request, in the same order.
 * @throws MayflyError with the failing step's own code.
 */
export async function verifyTaskEvent(compact: string, context: VerifyContext, keySets: KeySets): Promise<TaskEvent> {
  const { trust, audience, now } = context;
  const find = (claims: JsonObject, issuers: readonly TaskIssuer[]) => {
    // Its tokens tell who somebody is: that one of them says more of a task would be its holder's word.
    if (trust.tokenIssuers.some(({ issuer }) => issuer === claims['iss']))
      throw new MayflyError('request_issuer_unknown', 'This issuer states tasks by tokens, and signs no events.');
    return findIssuer(claims['iss'], issuers);
  };
  const signed: SignedToken<TaskIssuer> = await verifySigned(compact, taskEvent, trust.taskIssuers, keySets, find);
  const { issuer, claims, payload } = signed;
  requireAudience(claims, audience, requestRefusals);
  requireAlive(read(requestTimesSchema, claims), now);
  const { jti, task_id: taskId, reason = null, ...said } = read(eventClaimsSchema, claims);
  return { issuer, jti, payloadDigest: createHash('sha256').update(payload).digest(), taskId, reason, ...said };
}
