import { createHash } from 'node:crypto';
import type { z } from 'zod';
import type { TaskIssuer, Trust } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import type { Ceiling } from '../domain/task.ts';
import type { JsonObject } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import { requestRefusals } from './refusals.ts';
import { type TokenKind, verifySigned } from './signed-token.ts';
import {
  authorizationDetailsSchema,
  type RequestTimes,
  requestTimesSchema,
  type TaskClaims,
  taskClaimsSchema,
} from './task-claims.ts';
import { readKeyBinding } from './key-binding.ts';
import { fieldErrors, hasMember, requireAudience, requireBegun, requireNotExpired } from './token-claims.ts';
import type { TaskStatement, VerifyContext } from './types.ts';

/** Longest time between `iat` and `exp`, in seconds. */
const MAX_REQUEST_SECONDS = 300;

/** What issuers sign for us: told apart by its type alone, so that none passes for another. */
export function signedByIssuer(type: string): TokenKind {
  return {
    refusals: requestRefusals,
    typeFits: (typ) => typ === type,
    headerFits: (name) => name === 'alg' || name === 'typ' || name === 'kid',
  };
}

const taskRequest = signedByIssuer('agent-task+jwt');

/**
 * Proof (a): someone entitled stated this task. The order of checks is that of the facts sheet, so that what is
 * told to a caller never goes beyond what the caller has proven.
 * @throws MayflyError with the failing step's own code.
 */
export async function verifyTaskRequest(
  compact: string,
  context: VerifyContext,
  keySets: KeySets,
): Promise<TaskStatement> {
  const { trust, audience, now } = context;
  const { issuer, claims, payload } = await verifySigned(compact, taskRequest, trust.taskIssuers, keySets);
  requireAudience(claims, audience, requestRefusals);
  requireAlive(read(requestTimesSchema, claims), now);
  refuseMisplaced(claims);
  const keyThumbprint = readKeyBinding(claims);
  const stated = read(taskClaimsSchema, claims);
  requireEntitled(issuer, stated);
  if (keyThumbprint === null && issuer.proofOfPossession === 'required') throw new MayflyError('request_key_missing');
  const actorSources = nameableSources(issuer, stated, trust);
  const notAfter = new Date(stated.task.not_after * 1000);
  if (notAfter <= now) throw new MayflyError('request_deadline_past');
  return {
    issuer,
    jti: stated.jti,
    txn: stated.txn ?? null,
    externalId: stated.task.id,
    subject: stated.sub,
    actor: stated.act.sub,
    actorSources,
    keyThumbprint,
    deliveryThumbprint: stated.delivery_jkt ?? null,
    purpose: stated.task.purpose,
    phase: stated.task.phase ?? null,
    notAfter,
    maxDepth: stated.task.max_depth,
    intentHash: stated.task.intent_hash ?? null,
    ceiling: readCeiling(claims['authorization_details']),
    payloadDigest: createHash('sha256').update(payload).digest(),
  };
}

export function read<S extends z.ZodType>(schema: S, claims: JsonObject): z.output<S> {
  const result = schema.safeParse(claims);
  if (!result.success) {
    throw new MayflyError('request_claims_invalid', undefined, { errors: fieldErrors(result.error) });
  }
  return result.data;
}

export function requireAlive(times: RequestTimes, now: Date): void {
  requireBegun(times, now, requestRefusals);
  if (times.exp <= times.iat) {
    throw new MayflyError('request_claims_invalid', undefined, {
      errors: [{ path: '$.exp', message: 'must lie after iat' }],
    });
  }
  if (times.exp - times.iat > MAX_REQUEST_SECONDS) throw new MayflyError('request_lifetime_too_long');
  requireNotExpired(times, now, requestRefusals);
}

/** Where it would not be read, a key must not be taken for named. */
export function refuseMisplaced(claims: JsonObject): void {
  const inner = Object.values(claims);
  if (inner.some((value) => hasMember(value, 'cnf'))) throw new MayflyError('key_binding_unsupported');
  if (inner.some((value) => hasMember(value, 'delivery_jkt'))) {
    throw new MayflyError('request_claims_invalid', undefined, {
      errors: [{ path: '$.delivery_jkt', message: 'must stand beside `task`, not inside anything' }],
    });
  }
}

function requireEntitled(issuer: TaskIssuer, stated: TaskClaims): void {
  if (stated.sub === stated.act.sub && !issuer.autonomous) {
    throw new MayflyError('issuer_may_not_state', 'It may not state tasks that an agent does on its own behalf.');
  }
  if (!issuer.purposes.includes(stated.task.purpose)) {
    throw new MayflyError('issuer_may_not_state', 'It may not state tasks for this purpose.');
  }
}

/** Where workloads that fit `act` and stand on the issuer's list come from. Which of them asks is known only with its token. */
export function nameableSources(issuer: TaskIssuer, { act }: Pick<TaskClaims, 'act'>, trust: Trust): readonly string[] {
  const names = trust.workloadSources
    .filter((source) => act.iss === undefined || act.iss === source.issuer)
    .map(({ name }) => name)
    .filter((source) => namesWorkload(issuer.workloads, { source, subject: act.sub }));
  if (names.length === 0) throw new MayflyError('issuer_may_not_state', 'It may not name this workload.');
  return names;
}

export function readCeiling(details: unknown): Ceiling {
  const result = authorizationDetailsSchema.safeParse(details);
  if (!result.success) {
    throw new MayflyError('invalid_authorization_details', undefined, {
      errors: fieldErrors(result.error, '$.authorization_details'),
    });
  }
  const [entry] = result.data;
  return {
    entitlements: [...new Set(entry.entitlements)],
    params: entry.params ?? {},
    maxTtlSeconds: entry.max_ttl_seconds ?? null,
  };
}
