import { MayflyError } from '../domain/errors.ts';
import { namesWorkload } from '../domain/named-workloads.ts';
import type { ProblemCode } from '../domain/problems.ts';
import { type CompactJws, decodeCompactJws, type JsonObject, readClaims } from './compact-jws.ts';
import type { KeySets } from './key-sets.ts';
import { callerRefusals } from './refusals.ts';
import type { TokenReviews } from './sources/source.ts';
import {
  type TokenCheck,
  type TokenCheckName,
  tokenChecks,
  type TokenExplanation,
  type VerifyContext,
} from './types.ts';
import { callerSources, findSource, verifyCallerToken } from './workload-token.ts';

const failing: Partial<Record<ProblemCode, TokenCheckName>> = {
  workload_token_malformed: 'grammar',
  workload_token_type_wrong: 'type',
  workload_token_issuer_unknown: 'issuer',
  workload_token_algorithm_refused: 'algorithm',
  workload_token_header_refused: 'header',
  workload_token_key_unknown: 'key',
  keys_unavailable: 'key',
  workload_token_signature_invalid: 'signature',
  workload_token_audience_wrong: 'audience',
  workload_token_invalid: 'claims',
  workload_token_not_yet_valid: 'time',
  workload_token_expired: 'time',
  key_binding_unsupported: 'binding',
  operator_only: 'role',
};

/** Verifies a token as if it came with a call, and tells what was found. Never throws for what is wrong with the token. */
export async function explainToken(
  token: string,
  context: VerifyContext,
  keySets: KeySets,
  reviews: TokenReviews,
): Promise<TokenExplanation> {
  const judged = await verifyCallerToken(token, context, keySets, reviews).catch((thrown: unknown) => {
    if (thrown instanceof MayflyError && thrown.status !== 500) return thrown;
    throw thrown;
  });
  const refusal = judged instanceof MayflyError ? judged : null;
  const caller = judged instanceof MayflyError ? null : judged.caller;
  const { trust } = context;
  const parts = readParts(token);
  const source = parts && findSource(parts.claims, callerSources(trust));
  const failed = refusal === null ? undefined : failing[refusal.code];
  const words =
    parts === undefined ? {} : wordsOf(parts, context, source && { ...source, keys: keysOf(keySets, source) });
  const issuers = [...trust.taskIssuers, ...trust.tokenIssuers];
  return {
    checks: tokenChecks.map((check, index) => ({
      check,
      outcome: outcomeOf(index, failed, refusal),
      ...words[check],
    })),
    refusal,
    caller,
    boundTo: judged instanceof MayflyError ? { key: null, certificate: null } : judged.boundTo,
    source: source?.name ?? null,
    taskIssuers:
      caller?.kind === 'workload'
        ? issuers.filter(({ workloads }) => namesWorkload(workloads, caller.workload)).map(({ name }) => name)
        : [],
  };
}

function outcomeOf(index: number, failed: TokenCheckName | undefined, refusal: MayflyError | null) {
  if (refusal === null) return 'held';
  const at = failed === undefined ? 0 : tokenChecks.indexOf(failed);
  if (index === at && failed !== undefined) return 'failed';
  return index < at ? 'held' : 'unknown';
}

interface Parts {
  readonly header: JsonObject;
  readonly claims: JsonObject;
}

function readParts(token: string): Parts | undefined {
  try {
    const jws: CompactJws = decodeCompactJws(token, callerRefusals);
    return { header: jws.header, claims: readClaims(jws, callerRefusals) };
  } catch {
    return undefined;
  }
}

type Source = Parameters<KeySets['of']>[0] & { readonly issuer: string };

function keysOf(keySets: KeySets, source: Source): readonly string[] {
  return [...(keySets.of(source).current()?.keys.keys() ?? [])];
}

/** What stands in the token and what should, by check. */
function wordsOf(
  { header, claims }: Parts,
  { trust, audience, now }: VerifyContext,
  source: (Source & { readonly keys: readonly string[] }) | undefined,
): Partial<Record<TokenCheckName, Pick<TokenCheck, 'found' | 'expected'>>> {
  const { alg, kid, typ, ...others } = header;
  const { iss, sub, aud, iat, nbf, exp, cnf } = claims;
  const known = callerSources(trust).map(({ issuer }) => issuer);
  return {
    type: { found: typ ?? null },
    issuer: { found: iss ?? null, expected: source === undefined ? known : source.issuer },
    algorithm: { found: alg ?? null, ...(source && { expected: source.algorithms }) },
    header: { found: Object.keys(others) },
    key: { found: kid ?? null, ...(source && { expected: source.keys }) },
    audience: { found: aud ?? null, expected: audience },
    claims: { found: { sub: sub ?? null } },
    time: {
      found: { iat: iat ?? null, nbf: nbf ?? null, exp: exp ?? null },
      expected: { now: Math.floor(now.getTime() / 1000) },
    },
    binding: { found: cnf ?? null },
  };
}
