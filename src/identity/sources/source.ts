import type { z } from 'zod';
import type { KubernetesSource, TokenSource } from '../../catalog/types.ts';
import { MayflyError } from '../../domain/errors.ts';
import type { JsonObject } from '../compact-jws.ts';
import { fieldErrors } from '../token-claims.ts';
import type { VerifyContext, WorkloadInstance } from '../types.ts';

/** A token whose signature, audience and times hold, before the rules of its source's kind. */
export interface SourceToken {
  /** Exactly as received. */
  readonly text: string;
  readonly header: JsonObject;
  readonly claims: JsonObject;
}

/** Whom a token stands for, within its source. */
export interface NamedWorkload {
  readonly subject: string;
  readonly instance?: WorkloadInstance | undefined;
}

/** Asks a cluster whether a token still holds, where its source says so. */
export interface TokenReviews {
  /** @throws MayflyError `workload_token_invalid`, or `keys_unavailable` when the cluster gives no answer. */
  confirm(source: KubernetesSource, token: string, subject: string, context: VerifyContext): Promise<void>;
}

/**
 * What one kind of source demands of its tokens beyond what every token must pass.
 * @throws MayflyError 401 with the failing step's code.
 */
export type Verifier<S extends TokenSource> = (source: S, token: SourceToken) => NamedWorkload;

/** @throws MayflyError `workload_token_type_wrong` unless the header's `typ` is one of these; undefined: absent. */
export function requireType({ header }: Pick<SourceToken, 'header'>, types: readonly (string | undefined)[]): void {
  if (!types.some((type) => type === header['typ'])) throw new MayflyError('workload_token_type_wrong');
}

/** @throws MayflyError `workload_token_invalid` that names each claim that does not fit. */
export function readTokenClaims<S extends z.ZodType>(schema: S, claims: JsonObject): z.output<S> {
  const result = schema.safeParse(claims);
  if (!result.success) {
    throw new MayflyError('workload_token_invalid', undefined, { errors: fieldErrors(result.error) });
  }
  return result.data;
}

/**
 * Of a token that another party was given to act for its `sub` (RFC 8693 §4.1), its holder is not `sub`.
 * @throws MayflyError `workload_token_invalid`
 */
export function refuseActor({ claims }: Pick<SourceToken, 'claims'>): void {
  if (Object.hasOwn(claims, 'act')) refuseClaim('act', 'says that another acts for `sub`');
}

/** @throws MayflyError `workload_token_invalid` that names one claim. */
export function refuseClaim(claim: string, message: string): never {
  throw new MayflyError('workload_token_invalid', undefined, { errors: [{ path: `$.${claim}`, message }] });
}
