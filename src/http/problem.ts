import type { IncomingMessage, ServerResponse } from 'node:http';
import { MayflyError } from '../domain/errors.ts';
import { type ProblemCode, problemKind } from '../domain/problems.ts';
import { PROOF_ALGORITHMS } from '../identity/dpop.ts';
import type { ProblemBody } from './answers.ts';
import { dropBody } from './body.ts';
import type { HttpDeps } from './deps.ts';
import { notesOf } from './notes.ts';
import { metadataUrl } from './protected-resource.ts';
import { writeAnswer } from './write.ts';

/** What the caller may read of a refusal. The cause stays here. */
export function problemOf(error: MayflyError, requestId: string): ProblemBody {
  const { title, next } = problemKind(error.code);
  return {
    ...error.members,
    type: `/problems/${error.code}`,
    title,
    status: error.status,
    ...(error.detail === undefined ? {} : { detail: error.detail }),
    code: error.code,
    next,
    instance: requestId,
    ...(error.errors.length === 0 ? {} : { errors: [...error.errors] }),
  };
}

/** Whatever was thrown, as a refusal with a code. */
export function asMayflyError(error: unknown): MayflyError {
  if (error instanceof MayflyError) return error;
  // Express says so when an address can not be decoded.
  if (error instanceof URIError)
    return new MayflyError('invalid_request', 'The address is not valid percent-encoding.');
  return new MayflyError('internal', undefined, { cause: error });
}

/** Answers a refusal; notes it for the log line and counts it. */
export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  thrown: unknown,
  { metrics, config }: Pick<HttpDeps, 'metrics' | 'config'>,
): void {
  const error = asMayflyError(thrown);
  const notes = notesOf(response);
  notes.code = error.code;
  if (error.status >= 500 || error.cause !== undefined) notes.error = error;
  metrics.refused(error.code);
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  dropBody(request);
  if (error.status === 401)
    response.setHeader('WWW-Authenticate', challenge(error.code, metadataUrl(config.public_url)));
  if (error.retryAfterSeconds !== undefined) response.setHeader('Retry-After', String(error.retryAfterSeconds));
  writeAnswer(response, { status: error.status, body: problemOf(error, notes.request_id) }, 'application/problem+json');
}

/** Nothing was shown that could be wrong by RFC 6750. */
const withoutToken: ReadonlySet<ProblemCode> = new Set(['workload_token_missing', 'session_ended', 'login_failed']);

/** RFC 6750 §3: without a token there is no error to name. RFC 9449 §7.1: what a proof or its token lacks is told by the scheme DPoP. RFC 9728 §5.1. */
function challenge(code: ProblemCode, metadata: string): string {
  const told = `realm="mayfly", resource_metadata="${metadata}"`;
  const scheme = `Bearer ${told}`;
  const proof = `DPoP ${told}, algs="${PROOF_ALGORITHMS.join(' ')}"`;
  if (withoutToken.has(code)) return `${scheme}, ${proof}`;
  if (code === 'use_dpop_nonce') return `${proof}, error="${code}", error_description="Send the nonce in DPoP-Nonce."`;
  if (code.startsWith('proof_')) return `${proof}, error="invalid_dpop_proof", error_description="${code}"`;
  if (code === 'workload_token_bound') return `${proof}, error="invalid_token", error_description="${code}"`;
  return `${scheme}, error="invalid_token", error_description="${code}"`;
}
