import type { ProblemCode } from '../domain/problems.ts';

/** The steps that every kind of signed token must pass, each with the code of its failure. */
export interface Refusals {
  readonly malformed: ProblemCode;
  readonly duplicate: ProblemCode;
  readonly type: ProblemCode;
  readonly algorithm: ProblemCode;
  readonly header: ProblemCode;
  readonly issuer: ProblemCode;
  readonly key: ProblemCode;
  readonly signature: ProblemCode;
  readonly audience: ProblemCode;
  readonly notYetValid: ProblemCode;
  readonly expired: ProblemCode;
  readonly claims: ProblemCode;
}

export const requestRefusals: Refusals = {
  malformed: 'request_malformed',
  duplicate: 'duplicate_member',
  type: 'request_type_wrong',
  algorithm: 'request_algorithm_refused',
  header: 'request_header_refused',
  issuer: 'request_issuer_unknown',
  key: 'request_key_unknown',
  signature: 'request_signature_invalid',
  audience: 'request_audience_wrong',
  notYetValid: 'request_not_yet_valid',
  expired: 'request_expired',
  claims: 'request_claims_invalid',
};

/** For operators' tokens too: until the issuer is believed, nobody knows whose token it is. */
export const callerRefusals: Refusals = {
  malformed: 'workload_token_malformed',
  duplicate: 'workload_token_malformed',
  type: 'workload_token_type_wrong',
  algorithm: 'workload_token_algorithm_refused',
  header: 'workload_token_header_refused',
  issuer: 'workload_token_issuer_unknown',
  key: 'workload_token_key_unknown',
  signature: 'workload_token_signature_invalid',
  audience: 'workload_token_audience_wrong',
  notYetValid: 'workload_token_not_yet_valid',
  expired: 'workload_token_expired',
  claims: 'workload_token_invalid',
};
