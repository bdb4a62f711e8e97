import { z } from 'zod';
import type { OperatorRole, OperatorSource, WorkloadSource } from '../catalog/types.ts';
import { MayflyError } from '../domain/errors.ts';
import { workloadId } from '../domain/task.ts';
import { type JsonObject, MAX_COMPACT_CHARS } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import type { KeySet } from './key-source.ts';
import { readKeyBinding } from './key-binding.ts';
import { callerRefusals } from './refusals.ts';
import { type TokenKind, verifySigned } from './signed-token.ts';
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

const callerToken: TokenKind = {
  refusals: callerRefusals,
  // Only these: a task request, a proof or any other typed token of the same issuer is no identity.
  typeFits: (typ) => typ === undefined || typ === 'JWT' || typ === 'at+jwt',
  headerFits: (name) => !FORBIDDEN_HEADERS.has(name),
};

const claimsSchema = z.object({
  sub: printable(2048),
  exp: numericDate,
  iat: numericDate.optional(),
  nbf: numericDate.optional(),
});

export interface VerifiedCaller {
  /** Before any proof: an agent's key is not known yet. */
  readonly caller: Caller;
  /** Of the key that the token itself is bound to, null where it is not. */
  readonly boundKey: string | null;
  readonly times: TokenTimes;
  readonly source: WorkloadSource | OperatorSource;
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
 * Proof (b): this workload (or this operator) asks. The token is judged by its own source, chosen by `iss` alone.
 * @throws MayflyError 401 with the failing step's code, `key_binding_unsupported`, `operator_only` for a person
 * without a role here, or `keys_unavailable`.
 */
export async function verifyCallerToken(
  token: string,
  context: VerifyContext,
  keySets: KeySets,
): Promise<VerifiedCaller> {
  const { trust, audience, now } = context;
  const sources = [...trust.workloadSources, ...trust.operators];
  const { issuer: source, claims, keySet } = await verifySigned(token, callerToken, sources, keySets);
  requireAudience(claims, audience, callerRefusals);
  const result = claimsSchema.safeParse(claims);
  if (!result.success) {
    throw new MayflyError('workload_token_invalid', undefined, { errors: fieldErrors(result.error) });
  }
  const times = result.data;
  requireLive(times, now);
  const boundKey = readKeyBinding(claims);
  const workload = { source: source.name, subject: times.sub };
  const expiresAt = new Date(times.exp * 1000);
  const caller: Caller =
    'roles' in source
      ? { kind: 'operator', operator: workloadId(workload), roles: rolesOf(claims, source), expiresAt }
      : { kind: 'workload', workload, keyThumbprint: null, expiresAt };
  return { caller, boundKey, times, source, keySet };
}

/** @throws MayflyError `workload_token_not_yet_valid` or `workload_token_expired`. */
export function requireLive(times: TokenTimes, now: Date): void {
  requireBegun(times, now, callerRefusals);
  requireNotExpired(times, now, callerRefusals);
}

/** The roles that the catalog gives to the values of one claim: a text or a list of texts. */
function rolesOf(claims: JsonObject, source: OperatorSource): ReadonlySet<OperatorRole> {
  const claim = Object.hasOwn(claims, source.claim) ? claims[source.claim] : undefined;
  const values: readonly unknown[] = Array.isArray(claim) ? claim : [claim];
  const roles = new Set(
    values.flatMap((value) =>
      typeof value === 'string' && Object.hasOwn(source.roles, value) ? (source.roles[value] ?? []) : [],
    ),
  );
  if (roles.size === 0) throw new MayflyError('operator_only', 'Your token holds, but gives you no role here.');
  return roles;
}
