import { z } from 'zod';
import type { OperatorSource, RoleBinding, TokenSource, Trust, WorkloadSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { parseSpiffeId } from '../domain/spiffe-id.ts';
import { workloadId } from '../domain/task.ts';
import { type JsonObject, MAX_COMPACT_CHARS } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import type { KeySet } from './key-source.ts';
import { readTokenBinding, type TokenBinding } from './key-binding.ts';
import { callerRefusals } from './refusals.ts';
import { findIssuer, type TokenKind, verifySigned } from './signed-token.ts';
import { believe } from './sources/believe.ts';
import { oidcTypes } from './sources/oidc.ts';
import { refuseActor, requireType, type TokenReviews } from './sources/source.ts';
import {
  fieldErrors,
  numericDate,
  printable,
  requireAudience,
  requireBegun,
  requireNotExpired,
  type TokenTimes,
} from './token-claims.ts';
import type { Caller, VerifyContext } from './types.ts';

/** Headers that carry or point to a key, or change what is signed. Others (`x5t`, …) are common and decide nothing. */
const FORBIDDEN_HEADERS = new Set(['jwk', 'jku', 'x5u', 'x5c', 'crit', 'b64', 'zip', 'enc']);

const tokenTypes: ReadonlySet<unknown> = new Set([undefined, 'JWT', 'JOSE', 'at+jwt', 'application/at+jwt']);

const callerToken: TokenKind = {
  refusals: callerRefusals,
  // Only these: a task request, a proof or any other typed token of the same issuer is no identity.
  // Which of them a source gives is its own verifier's business.
  typeFits: (typ) => tokenTypes.has(typ),
  headerFits: (name) => !FORBIDDEN_HEADERS.has(name),
};

const claimsSchema = z.object({
  sub: printable(2048),
  exp: numericDate,
  iat: numericDate.optional(),
  nbf: numericDate.optional(),
});

type CallerSource = TokenSource | OperatorSource;

export interface VerifiedCaller {
  /** Before any proof: an agent's key is not known yet. */
  readonly caller: Caller;
  /** The key or certificate that the token itself is bound to. */
  readonly boundTo: TokenBinding;
  readonly times: TokenTimes;
  readonly source: CallerSource;
  readonly keySet: KeySet;
}

/** RFC 9449 §7.1 and §7.2: which of the two a token comes by tells whether it is bound to a key. */
export interface PresentedToken {
  readonly scheme: 'bearer' | 'dpop';
  readonly token: string;
}

/**
 * The token of `Authorization: Bearer <token>` or `DPoP <token>`. Two values that were joined with a comma do not pass.
 * @throws MayflyError `workload_token_missing` or `workload_token_malformed`.
 */
export function readAuthorization(authorization: string | undefined): PresentedToken {
  const [name = '', token = '', ...rest] = (authorization ?? '').slice(0, MAX_COMPACT_CHARS + 16).split(' ');
  const scheme = name.toLowerCase();
  if (scheme !== 'bearer' && scheme !== 'dpop') throw new MayflyError('workload_token_missing');
  if (token === '' || rest.length > 0) throw new MayflyError('workload_token_malformed');
  return { scheme, token };
}

/**
 * Proof (b): this workload (or this operator) asks. The token is judged by its own source: the one that `iss` names, or
 * else the one of the trust domain that `sub` names, and by the rules that the catalog's `kind` of that source sets.
 * @throws MayflyError 401 with the failing step's code, `key_binding_unsupported`, `operator_only` for a person
 * without a role here, or `keys_unavailable`.
 */
export async function verifyCallerToken(
  token: string,
  context: VerifyContext,
  keySets: KeySets,
  reviews: TokenReviews,
): Promise<VerifiedCaller> {
  const { trust, audience, now } = context;
  const signed = await verifySigned(token, callerToken, callerSources(trust), keySets, findSource);
  const { issuer: source, claims, keySet } = signed;
  requireAudience(claims, audience, callerRefusals);
  const result = claimsSchema.safeParse(claims);
  if (!result.success) {
    throw new MayflyError('workload_token_invalid', undefined, { errors: fieldErrors(result.error) });
  }
  const times = result.data;
  requireLive(times, now);
  const boundTo = readTokenBinding(claims);
  const expiresAt = new Date(times.exp * 1000);
  if ('roles' in source) {
    requireType(signed, oidcTypes);
    refuseActor(signed);
    const operator = workloadId({ source: source.name, subject: times.sub });
    const caller: Caller = {
      kind: 'operator',
      operator,
      roles: rolesOf(claims, source),
      groups: groupsOf(claims, source),
      expiresAt,
    };
    return { caller, boundTo, times, source, keySet };
  }
  const { subject, instance } = await believe(source, { ...signed, text: token }, context, reviews);
  const workload = { source: source.name, subject };
  const copy = { instance: instance?.id ?? null, ...(instance && { instanceDetails: instance.details }) };
  const caller: Caller = { kind: 'workload', workload, keyThumbprint: null, ...copy, expiresAt };
  return { caller, boundTo, times, source, keySet };
}

/** A certificate speaks for itself: no token passes for one of its source. */
function hasTokens(source: WorkloadSource): source is TokenSource {
  return source.kind !== 'spiffe-x509';
}

/** All whose tokens callers may show. */
export function callerSources(trust: Trust): readonly CallerSource[] {
  return [...trust.workloadSources.filter(hasTokens), ...trust.operators];
}

/** A JWT-SVID needs no `iss`; its trust domain stands in `sub`. Either way only the catalog's own sources are found. */
export function findSource(claims: JsonObject, sources: readonly CallerSource[]): CallerSource | undefined {
  const { iss, sub } = claims;
  const id = typeof sub === 'string' ? parseSpiffeId(sub) : undefined;
  return findIssuer(iss, sources) ?? (id && findIssuer(`spiffe://${id.trustDomain}`, sources));
}

/** @throws MayflyError `workload_token_not_yet_valid` or `workload_token_expired`. */
export function requireLive(times: TokenTimes, now: Date): void {
  requireBegun(times, now, callerRefusals);
  requireNotExpired(times, now, callerRefusals);
}

/** The roles that the catalog gives to the values of one claim: a text or a list of texts. */
export function rolesOf(claims: JsonObject, source: OperatorSource): readonly RoleBinding[] {
  const roles = new Set(given(claims, source, source.roles));
  if (roles.size === 0) throw new MayflyError('operator_only', 'Your token holds, but gives you no role here.');
  return [...roles];
}

/** The groups that the catalog gives to the values of the same claim. */
export function groupsOf(claims: JsonObject, source: OperatorSource): readonly string[] {
  return [...new Set(given(claims, source, source.groups ?? {}))];
}

function given<T>(
  claims: JsonObject,
  source: OperatorSource,
  by: Readonly<Record<string, readonly T[]>>,
): readonly T[] {
  const claim = Object.hasOwn(claims, source.claim) ? claims[source.claim] : undefined;
  const values: readonly unknown[] = Array.isArray(claim) ? claim : [claim];
  return values.flatMap((value) => (typeof value === 'string' && Object.hasOwn(by, value) ? (by[value] ?? []) : []));
}
