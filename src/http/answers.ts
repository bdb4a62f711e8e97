import { z } from 'zod';
import { problemCodes } from '../domain/problems.ts';

// What we answer. The views are typed by these schemas, the OpenAPI document is made from them, and the tests hold answers against them.

const idOf = (prefix: string, says: string) =>
  z
    .string()
    .regex(new RegExp(`^${prefix}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`))
    .meta({ description: says, example: `${prefix}_0198c0de-7a11-7000-8000-0123456789ab` });

export const time = z.iso.datetime({ precision: 3 }).meta({ example: '2026-11-22T18:00:00.000Z' });
export const anything = z.record(z.string(), z.unknown());

export const taskId = idOf('task', 'A task.');
export const grantId = idOf('grt', 'A grant.');
export const revocationId = idOf('rev', 'The obligation to end a grant.');
export const decisionId = idOf('dec', 'A policy decision.');
export const killId = idOf('kill', 'A kill.');
export const approvalId = idOf('apr', 'An approval.');
export const signalId = idOf('sig', 'A signal.');

export const endedBy = z.enum([
  'completed',
  'cancelled',
  'expired',
  'released',
  'drift',
  'signal',
  'operator',
  'parent_ended',
  'mint_failed',
  'orphaned',
  'cut_off',
]);
export const revocationState = z.enum(['scheduled', 'due', 'running', 'contained', 'clean', 'written_off']);

export const guaranteed = z.enum(['immediate', 'propagating', 'expiry-only', 'irrevocable']);
const guarantee = z
  .strictObject({
    revocation: guaranteed,
    propagation_seconds: z.number().optional(),
    native_expiry: z.boolean().meta({ description: 'The target itself refuses the credential after its deadline.' }),
    ends_sessions: z.boolean().meta({ description: 'Ending the credential ends the sessions opened with it.' }),
    enumerable: z.boolean(),
    one_connection: z
      .boolean()
      .optional()
      .meta({ description: 'A credential can be held to one connection at a time.' }),
    min_ttl_seconds: z.number(),
    max_ttl_seconds: z.number(),
    says: z.string().meta({ description: 'The sentence that a person reads.' }),
  })
  .meta({ id: 'Guarantee', description: 'What the target’s provider promises about ending the credential early.' });

export const grantBody = z
  .strictObject({
    id: grantId,
    task_id: taskId,
    entitlement: z.string(),
    target: z.string(),
    params: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])),
    state: z.enum(['pending_approval', 'approved', 'denied', 'minting', 'active', 'revoking', 'revoked']),
    deadline: time.optional().meta({ description: 'Absent where nothing was made of it yet, or never was.' }),
    per_call: z.literal(true).optional().meta({ description: 'Made for one call: one connection, and never renewed.' }),
    guarantee,
    decision_id: decisionId,
    created_at: time,
    ended_by: endedBy.optional(),
    revocation: z
      .strictObject({
        id: revocationId,
        state: revocationState,
        due_at: time,
        attempts: z.int(),
        last_error: z.enum(['retryable', 'denied', 'misconfigured', 'gone']).optional(),
        evidence: anything.optional(),
      })
      .optional()
      .meta({ description: 'Absent where nothing was made that could be taken back.' }),
  })
  .meta({ id: 'Grant', description: 'One entitlement issued to one task, and the obligation to end it.' });

/** One of which something was made. */
const mintedBody = grantBody
  .required({ deadline: true, revocation: true })
  .meta({ id: 'MintedGrant', description: 'A grant with its deadline, and with what takes it back.' });

const standing = {
  id: taskId,
  external_id: z.string().meta({ description: 'The issuer’s own id of the task; of a delegated one, ours.' }),
  state: z.enum(['offered', 'active', 'suspended', 'completed', 'cancelled', 'expired', 'revoked']),
  purpose: z.string(),
  phase: z.string().nullable(),
  subject: z.string().meta({ description: 'On whose behalf.' }),
  workload: z.string().meta({ description: '`<source>:<subject>` of the agent.' }),
  parent_id: taskId.nullable(),
  created_at: time,
  not_after: time,
  ended_by: endedBy.optional(),
};

/** For those who do not own it: what it is, not what it holds. */
const taskStanding = z
  .strictObject(standing)
  .meta({ id: 'TaskStanding', description: 'A task without its grants: those are for its owner.' });

export const taskBody = z
  .strictObject({
    ...standing,
    grants: z.array(grantBody),
    children: z.array(taskStanding).meta({ description: 'All that hangs on it, parents before their children.' }),
  })
  .meta({ id: 'Task', description: 'A bounded piece of agent work.' });

export const claimedBody = z.strictObject({ task: taskBody }).meta({ id: 'ClaimedTask' });
export const delegatedBody = z
  .strictObject({
    task: taskStanding,
    cut: z
      .strictObject({ asked_not_after: time.optional(), asked_max_ttl_seconds: z.int().optional() })
      .optional()
      .meta({ description: 'What was asked for and is longer than its parent has.' }),
  })
  .meta({ id: 'DelegatedTask' });

const credentialBody = z
  .looseObject({ expires_at: time, guarantee, grant_id: grantId })
  .meta({ id: 'Credential', description: 'The secret, given once, in its provider’s own members; always with these.' });

const handedOver = z.union([
  credentialBody,
  z.string().meta({
    description:
      'With `delivery`: the same, sealed (compact JWE). Its protected header tells `grant_id` and `expires_at`.',
  }),
]);

const cut = z
  .strictObject({
    by: z.enum(['asked', 'request', 'policy', 'entitlement', 'task', 'provider']),
    asked_seconds: z.int(),
    granted_seconds: z.int(),
  })
  .meta({ description: 'What was cut from what was asked for, and by which bound.' });

export const problemBody = z
  .looseObject({
    type: z.string().meta({ example: '/problems/not_found' }),
    title: z.string(),
    status: z.int(),
    detail: z.string().optional(),
    code: z.enum(problemCodes),
    next: z.string().meta({ description: 'What to do now.' }),
    instance: z.string().meta({ description: 'The request’s id.' }),
    errors: z.array(z.strictObject({ path: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Problem', description: 'RFC 9457 problem details.' });

const pendingApproval = z
  .strictObject({
    id: approvalId,
    groups: z.array(z.string()).meta({ description: 'Somebody of each must approve it.' }),
    expires_at: time.meta({ description: 'Until when it can be approved; once it is, collected.' }),
  })
  .meta({ id: 'PendingApproval' });

export const pendingBody = z
  .strictObject({
    grant: grantBody.omit({ deadline: true, revocation: true }).meta({ id: 'UnmintedGrant' }),
    approval: pendingApproval,
  })
  .meta({ id: 'PendingGrant', description: 'It is to be approved, and then collected.' });

export const openedBody = z
  .strictObject({
    task: taskBody,
    issued: z
      .array(
        z.strictObject({
          entitlement: z.string(),
          grant: grantBody.optional(),
          credential: handedOver.optional(),
          approval: pendingApproval.optional().meta({ description: 'It waits for this.' }),
          problem: problemBody.optional(),
        }),
      )
      .optional(),
    cut: z
      .strictObject({ by: z.enum(['issuer', 'purpose']), asked_not_after: time })
      .optional()
      .meta({ description: 'The task lives shorter than its issuer said.' }),
  })
  .meta({ id: 'OpenedTask' });

export const issuedBody = z
  .strictObject({ grant: mintedBody, credential: handedOver, cut: cut.optional() })
  .meta({ id: 'IssuedGrant' });

export const renewedBody = z
  .strictObject({ grant: mintedBody, credential: handedOver.optional(), cut: cut.optional() })
  .meta({ id: 'RenewedGrant', description: '`credential` only if it is new.' });

const revocationLine = z
  .strictObject({
    id: revocationId,
    grant_id: grantId,
    target: z.string(),
    state: revocationState,
    evidence: anything.optional(),
  })
  .meta({ id: 'RevocationLine' });

export const takenEventBody = z
  .strictObject({
    task: taskStanding,
    revocations: z
      .array(z.strictObject({ id: revocationId, target: z.string(), state: revocationState }))
      .optional()
      .meta({ description: 'Of an end: what is taken back, and how far that got.' }),
  })
  .meta({ id: 'TakenEvent' });

export const endedTaskBody = z
  .strictObject({ task: taskBody, revocations: z.array(revocationLine) })
  .meta({ id: 'EndedTask' });
export const releasedGrantBody = z
  .strictObject({ grant: grantBody, revocations: z.array(revocationLine) })
  .meta({ id: 'ReleasedGrant' });

export const eventBody = z
  .strictObject({
    id: idOf('evt', 'An event.'),
    ts: time,
    type: z.string(),
    agent: z.string(),
    subject: z.string(),
    resource: z.string(),
    action: z.string(),
    decision: z.enum(['permit', 'deny', 'none']),
    correlation_id: z.string(),
    posture: z.string(),
    cause: z.string(),
    task_id: taskId.nullable(),
    grant_id: grantId.nullable(),
    decision_id: decisionId.nullable(),
    txn: z.string().nullable(),
    policy_digest: z.string(),
    payload: anything,
  })
  .meta({ id: 'Event', description: 'One row of evidence.' });

export const timelineBody = z.strictObject({ items: z.array(eventBody) }).meta({ id: 'Timeline' });

export const aliveBody = z.strictObject({ status: z.literal('ok') }).meta({ id: 'Alive' });
export const readyBody = z
  .strictObject({
    status: z.enum(['ready', 'not_ready']),
    parts: z.array(z.strictObject({ part: z.string(), ok: z.boolean(), says: z.string().optional() })),
  })
  .meta({ id: 'Ready' });

export const problemPageBody = z
  .strictObject({ type: z.string(), code: z.enum(problemCodes), status: z.int(), title: z.string(), next: z.string() })
  .meta({ id: 'ProblemPage' });

export type TaskBody = z.output<typeof taskBody>;
export type TaskStanding = z.output<typeof taskStanding>;
export type DelegatedBody = z.output<typeof delegatedBody>;
export type TakenEventBody = z.output<typeof takenEventBody>;
export type GrantBody = z.output<typeof grantBody>;
export type CredentialBody = z.output<typeof credentialBody>;
export type HandedOver = z.output<typeof handedOver>;
export type ProblemBody = z.output<typeof problemBody>;
export type OpenedBody = z.output<typeof openedBody>;
export type PendingBody = z.output<typeof pendingBody>;
export type IssuedBody = z.output<typeof issuedBody>;
export type RenewedBody = z.output<typeof renewedBody>;
export type RevocationLine = z.output<typeof revocationLine>;
export type EndedTaskBody = z.output<typeof endedTaskBody>;
export type ReleasedGrantBody = z.output<typeof releasedGrantBody>;
export type EventBody = z.output<typeof eventBody>;
export type TimelineBody = z.output<typeof timelineBody>;
export type ReadyBody = z.output<typeof readyBody>;
export type ProblemPageBody = z.output<typeof problemPageBody>;
