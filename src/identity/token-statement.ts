import { createHash } from 'node:crypto';
import { z } from 'zod';
import type { FromToken, TokenIssuer } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import type { ParamValue, Workload } from '../domain/task.ts';
import { decodeCompactJws, type JsonObject, readClaims } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import { requestRefusals } from './refusals.ts';
import type { TokenReviews } from './sources/source.ts';
import { fieldErrors, printable } from './token-claims.ts';
import type { TaskStatement, VerifyContext } from './types.ts';
import { verifyCallerToken } from './workload-token.ts';

const text = printable(2048);
const paramSchema = z.union([z.string().max(1024), z.int(), z.boolean()]);
/** What names a run or a token, as text or as a number; escaped, so that no two lists of them are one when joined. */
const idPart = z.union([printable(200).transform(encodeURIComponent), z.int().transform(String)]);

/**
 * Whether this is to be read as a token and not as a task request. Each way refuses what belongs to the other by its type,
 * so that the header, which nobody vouches for yet, opens nothing.
 */
export function statesByToken(compact: string, { trust }: VerifyContext): boolean {
  if (trust.tokenIssuers.length === 0) return false;
  return decodeCompactJws(compact, requestRefusals).header['typ'] !== 'agent-task+jwt';
}

/**
 * A token that is itself the statement of a task: a CI run's, a person's login. It is judged as a token of its workload
 * source, by that source's kind; what it states says the catalog, from its claims.
 * @throws MayflyError with the code of a workload token's failing step, `request_issuer_unknown`, `request_claims_invalid`
 * or `issuer_may_not_state`.
 */
export async function verifyTokenStatement(
  compact: string,
  context: VerifyContext,
  keySets: KeySets,
  reviews: TokenReviews,
): Promise<TaskStatement> {
  const { caller, boundTo, source, times } = await verifyCallerToken(compact, context, keySets, reviews);
  const issuer = context.trust.tokenIssuers.find(({ statement }) => statement.source === source.name);
  if (issuer === undefined || caller.kind !== 'workload') throw new MayflyError('request_issuer_unknown');
  const jws = decodeCompactJws(compact, requestRefusals);
  const claims = readClaims(jws, requestRefusals);
  const payloadDigest = createHash('sha256').update(jws.payload).digest();
  const { statement } = issuer;

  const actor = statedWorkload(issuer, claims, caller.workload);
  const subject = readClaim(claims, statement.subjectClaim, text);
  const purpose = valueOf(statement.purpose, claims, text);
  requireEntitled(issuer, purpose, actor, subject);
  // A task belongs to a key: certificates are renewed while it lives.
  if (boundTo.certificate !== null) throw new MayflyError('key_binding_unsupported');
  if (boundTo.key === null && issuer.proofOfPossession === 'required') throw new MayflyError('request_key_missing');
  const jti = Object.hasOwn(claims, 'jti')
    ? readClaim(claims, 'jti', printable(200))
    : `sha-256:${payloadDigest.toString('base64url')}`;
  const { notAfterSeconds, externalIdClaims } = statement;
  return {
    issuer,
    jti,
    txn: null,
    externalId: externalIdClaims.map((claim) => readClaim(claims, claim, idPart)).join('/') || jti,
    subject,
    actor: actor.subject,
    actorSources: [actor.source],
    keyThumbprint: boundTo.key,
    deliveryThumbprint: null,
    purpose,
    phase: null,
    notAfter:
      notAfterSeconds === null ? caller.expiresAt : new Date(begin(times.iat, context.now) + notAfterSeconds * 1000),
    maxDepth: 0,
    intentHash: null,
    ceiling: {
      entitlements: statement.entitlements,
      params: readParams(issuer, claims),
      maxTtlSeconds: statement.maxTtlSeconds,
    },
    payloadDigest,
  };
}

/** The token's own birth where it says so: told later, the same token states no later end. */
function begin(iat: number | undefined, now: Date): number {
  return iat === undefined ? now.getTime() : Math.min(iat * 1000, now.getTime());
}

function statedWorkload({ statement }: TokenIssuer, claims: JsonObject, own: Workload): Workload {
  const { workload } = statement;
  if (workload === null) return own;
  return 'subject' in workload
    ? workload
    : { source: workload.source, subject: readClaim(claims, workload.claim, text) };
}

function requireEntitled(issuer: TokenIssuer, purpose: string, actor: Workload, subject: string): void {
  if (!issuer.purposes.includes(purpose)) {
    throw new MayflyError('issuer_may_not_state', 'It may not state tasks for this purpose.');
  }
  if (!namesWorkload(issuer.workloads, actor)) {
    throw new MayflyError('issuer_may_not_state', 'It may not name this workload.');
  }
  if (subject === actor.subject && !issuer.autonomous) {
    throw new MayflyError('issuer_may_not_state', 'It may not state tasks that an agent does on its own behalf.');
  }
}

function readParams({ statement }: TokenIssuer, claims: JsonObject): Readonly<Record<string, ParamValue>> {
  const entries = Object.entries(statement.params);
  return Object.fromEntries(entries.map(([name, from]) => [name, valueOf(from, claims, paramSchema)]));
}

function valueOf<T>(from: FromToken<T>, claims: JsonObject, schema: z.ZodType<T>): T {
  return 'claim' in from ? readClaim(claims, from.claim, schema) : from.value;
}

function readClaim<T>(claims: JsonObject, claim: string, schema: z.ZodType<T>): T {
  const result = schema.safeParse(Object.hasOwn(claims, claim) ? claims[claim] : undefined);
  if (result.success) return result.data;
  throw new MayflyError('request_claims_invalid', undefined, { errors: fieldErrors(result.error, `$.${claim}`) });
}
