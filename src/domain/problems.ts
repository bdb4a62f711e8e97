import { approvalProblems } from './approval-problems.ts';
import { callerProblems } from './caller-problems.ts';
import { signalProblems } from './signal-problems.ts';
import { catalogProblems } from './catalog-problems.ts';

/**
 * Every refusal that a caller can meet: its stable code, HTTP status, title, and what to do next. The wire's
 * `type` is `/problems/<code>`; the broker serves one page each, made from this table. Texts never tell
 * whether something exists that the caller may not see.
 */
interface ProblemKind {
  readonly status: number;
  readonly title: string;
  readonly next: string;
}

const kinds = {
  malformed_json: [
    400,
    'The body is not valid JSON',
    'Send one JSON object in UTF-8 with Content-Type: application/json.',
  ],
  duplicate_member: [
    400,
    'A member name appears twice',
    'Send each member once: readers disagree about which of two would count.',
  ],
  invalid_request: [
    400,
    'The request does not fit its schema',
    'Compare it with /openapi.json; `errors` names each place.',
  ],
  request_malformed: [
    400,
    'The signed request is not a strict compact JWS',
    'Send three base64url parts without padding or white space, at most 16 KiB.',
  ],
  key_binding_unsupported: [
    400,
    'This way to bind a request or token to a key is not supported by this release',
    'Name the key by `cnf.jkt`, its SHA-256 thumbprint (RFC 7638), or in a token the certificate by `cnf.x5t#S256`, and nothing else.',
  ],
  too_many_evaluations: [
    400,
    'There are too many evaluations in one request',
    'Send at most 50, and the others in another request.',
  ],
  host_refused: [
    400,
    'The Host header does not name this broker',
    'Use the address that the broker is configured with (MAYFLY_PUBLIC_URL).',
  ],
  request_type_wrong: [
    401,
    'The signed request has the wrong type',
    'Sign a task request with `typ: agent-task+jwt`, an event with `agent-task-event+jwt`, a delegation with `agent-delegation+jwt`.',
  ],
  request_task_wrong: [
    401,
    'The signed request is about another task',
    'Send it to the task that it names, signed by the issuer that stated that task.',
  ],
  request_algorithm_refused: [
    401,
    'The signed request is signed with an algorithm that is not allowed',
    'Use an algorithm that the catalog lists for this issuer.',
  ],
  request_header_refused: [
    401,
    'The signed request carries a header that is not allowed',
    'Send only `alg`, `typ` and `kid`.',
  ],
  request_issuer_unknown: [
    401,
    'The signed request comes from an issuer that is not trusted',
    'Use an issuer that the catalog trusts.',
  ],
  request_key_unknown: [
    401,
    'The signed request is signed with a key that its issuer does not publish',
    'Sign with a key of the issuer’s JWKS and name it by `kid`.',
  ],
  request_signature_invalid: [
    401,
    'The signature of the signed request does not hold',
    'Sign the exact bytes that are sent.',
  ],
  request_audience_wrong: [
    401,
    'The signed request is not meant for this broker',
    'Set `aud` to this broker’s public URL, alone.',
  ],
  request_expired: [401, 'The signed request has expired', 'Have a new one signed; it lives at most 300 seconds.'],
  request_not_yet_valid: [401, 'The signed request comes from the future', 'Check the issuer’s clock.'],
  request_lifetime_too_long: [401, 'The signed request lives too long', 'Set `exp` at most 300 seconds after `iat`.'],
  request_claims_invalid: [
    400,
    'A claim of the signed request is missing or of the wrong kind',
    '`errors` names each one.',
  ],
  request_deadline_past: [
    401,
    'The deadline of the task has passed',
    'Ask the task issuer for a task whose `not_after` lies ahead.',
  ],
  invalid_authorization_details: [
    400,
    'The `authorization_details` of the signed request do not fit',
    'Send exactly one entry of type `mayfly`; `errors` names each place.',
  ],
  request_key_missing: [
    401,
    'The signed request does not name the key of the agent',
    'Ask the task issuer to state `cnf.jkt`, the thumbprint of your key.',
  ],
  request_key_wrong: [
    401,
    'The task request names another key than the one that was proven',
    'Sign the proof with the key whose thumbprint stands in `cnf.jkt` of the task request.',
  ],
  task_request_used: [401, 'The signed request was used already', 'Have a new one signed, with a new `jti`.'],
  ...callerProblems,
  ...approvalProblems,
  ...signalProblems,
  ...catalogProblems,

  peer_refused: [
    403,
    'Callers must come through the proxy that the broker trusts',
    'Use the address that the broker is configured with (MAYFLY_PUBLIC_URL).',
  ],
  cross_site_refused: [
    403,
    'The call comes from a page of another site',
    'Call from a page of this broker, or with a token in `Authorization`.',
  ],
  issuer_may_not_state: [
    403,
    'This issuer may not state such a task',
    'Ask the platform team which purposes and workloads the issuer may name.',
  ],
  delivery_key_wrong: [
    403,
    'The task names another key than the one to seal to',
    'Use the key whose thumbprint the signed task request states as `cnf.jkt` or `delivery_jkt`: a key in the body alone could be anybody’s.',
  ],
  workload_not_named: [
    403,
    'The task request names another workload',
    'The workload in `act.sub` must present it, with its own token.',
  ],
  not_in_task: [
    403,
    'The task does not cover this entitlement',
    'Ask the task issuer for a task whose request names it.',
  ],
  not_in_phase: [
    403,
    'The task is bound to another phase than the tasks above it are in now',
    'Ask for a delegation of that phase, or of none: then the task moves with its parent.',
  ],
  excessive_delegation: [
    403,
    'A task can not give what it does not have',
    'Delegate no more than the task’s own entitlements, params, purpose, phase and depth.',
  ],
  limit_reached: [
    403,
    'A limit of the catalog does not permit this now',
    'Release what is not needed any more; a grant counts until it is contained. `reasons` says which limit.',
  ],
  denied_by_policy: [
    403,
    'Policy does not permit this',
    '`reasons` says what the policy lets you know; the decision id finds the rest.',
  ],
  killed: [
    403,
    'An operator has stopped this',
    'Do not try again: it goes on only when an operator lifts the stop. Tell whoever runs you.',
  ],
  operator_only: [403, 'Only an operator may do this', 'Ask an operator of this broker.'],

  not_found: [404, 'There is nothing here that you may see', 'Check the id.'],
  method_not_allowed: [405, 'This resource does not know that method', 'See /openapi.json.'],

  task_ended: [409, 'The task has ended', 'Ask the task issuer for a new task.'],
  task_offered: [
    409,
    'Nobody has claimed the task yet',
    'The workload that it names claims it with POST /v1/tasks/{id}/claim; until then there is nothing to complete or ask for.',
  ],
  phase_passed: [409, 'The task is in a later phase', 'Phases go in the order of purposes.yaml, and never back.'],
  tree_full: [409, 'The task’s tree has as many tasks as it may', 'Ask the task issuer for another task.'],
  task_suspended: [
    409,
    'The task is suspended',
    'Wait until it is resumed: by an operator, or by the signal that suspended it.',
  ],
  grant_per_call: [
    409,
    'The grant is for one call',
    'Ask for a new grant for the next one: each is decided by itself.',
  ],
  grant_ended: [409, 'The grant has ended', 'Ask for a new grant while the task is alive.'],
  external_id_used: [409, 'A task with this id was opened before', 'The issuer must give each task an id of its own.'],
  key_in_flight: [
    409,
    'A request with this Idempotency-Key is still running',
    'Wait a moment, then send the same request again.',
  ],
  revocation_not_due: [
    409,
    'The grant has not ended',
    'End it first, with DELETE /v1/grants/{id}; then there is something to revoke.',
  ],
  revocation_running: [409, 'A worker has it in hand at this moment', 'Look at it again in a few seconds.'],
  revocation_over: [409, 'There is nothing left to do for this revocation', '`state` says how it ended.'],

  body_too_large: [
    413,
    'The body is too large',
    'Send at most 64 KiB, or 4 MiB where a catalog is sent; `mayfly catalog` on the store itself takes larger ones.',
  ],
  unsupported_media_type: [415, 'The body is not JSON', 'Send Content-Type: application/json.'],
  impossible_value: [422, 'A value is impossible', '`errors` names it. TTLs are whole seconds from 1 to 86400.'],
  params_invalid: [
    422,
    'The task’s params do not fit this entitlement',
    'Ask the task issuer for a request whose params fit the catalog’s schema.',
  ],
  delivery_key_refused: [
    422,
    'Credentials can not be sealed to this key',
    'Put the public key alone into `delivery.jwk`: P-256 or X25519, for ECDH-ES+A256KW.',
  ],
  delivery_required: [
    422,
    'This credential is handed over sealed only',
    'Name a key by `delivery.jwk`: the one whose thumbprint the task request states as `cnf.jkt` or `delivery_jkt`.',
  ],
  idempotency_key_reused: [422, 'This Idempotency-Key came with another body', 'Use a new key for a new request.'],
  ttl_below_minimum: [
    422,
    'The credential would live shorter than its target allows',
    'Ask earlier in the task, or for longer.',
  ],

  too_many_calls: [429, 'There were too many calls', 'Wait as long as `Retry-After` says, then go on more slowly.'],
  too_many_polls: [
    429,
    'This caller has too many long polls open',
    'Ask without `wait`, or again when some of them have ended.',
  ],
  too_many_mints: [
    429,
    'No more credentials are made for this task',
    'Renew the grants that it has, or ask the task issuer for another task.',
  ],
  too_many_tasks: [
    429,
    'The issuer of this task has too many tasks alive',
    'Complete tasks that are done; then send the same request again.',
  ],

  keys_unavailable: [503, 'The keys of an issuer can not be fetched now', 'Try again after `Retry-After`.'],
  store_unavailable: [503, 'The store is not available', 'Try again after `Retry-After`.'],
  target_unavailable: [
    503,
    'The target could not make the credential now',
    'Try again after `Retry-After`. What was begun is being taken back.',
  ],
  target_refused: [
    503,
    'The target refused to make the credential',
    'Tell the platform team: the target needs to be prepared again. What was begun is being taken back.',
  ],
  target_paused: [
    503,
    'An operator has paused this target',
    'Try again after `Retry-After`, or ask an operator when it is resumed. After a repeated Idempotency-Key `grant_id` names what it was answered with: that stands.',
  ],
  store_failed_over: [
    503,
    'The store failed over, and this target is not reconciled yet',
    'Try again after `Retry-After`: nothing is issued or renewed there until it is known what was forgotten.',
  ],
  not_ready: [503, 'The broker is not ready', 'Try again after `Retry-After`; /readyz says which part.'],
  shutting_down: [503, 'The broker is shutting down', 'Try again: another replica will answer.'],
  internal: [500, 'Something went wrong here', 'Tell an operator the request id.'],
} as const satisfies Record<string, readonly [number, string, string]>;

export type ProblemCode = keyof typeof kinds;

export const problemCodes = Object.keys(kinds) as ProblemCode[];

export function problemKind(code: ProblemCode): ProblemKind {
  const [status, title, next] = kinds[code];
  return { status, title, next };
}
