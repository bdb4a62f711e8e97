import type { ProblemCode } from '../domain/problems.ts';

/** Whatever is signed for us, by an issuer or by a parent task, meets these. */
export const signedRefusals = [
  'request_malformed',
  'request_claims_invalid',
  'request_type_wrong',
  'request_algorithm_refused',
  'request_header_refused',
  'request_issuer_unknown',
  'request_key_unknown',
  'request_signature_invalid',
  'request_audience_wrong',
  'request_expired',
  'request_not_yet_valid',
  'request_lifetime_too_long',
  'task_request_used',
  'issuer_may_not_state',
] as const satisfies readonly ProblemCode[];
