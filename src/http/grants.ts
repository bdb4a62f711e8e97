import { isContained } from '../broker/read.ts';
import type { Issued } from '../broker/issue-grant.ts';
import type { DeliveryKey } from '../identity/delivery-key.ts';
import type { ReadGrant } from '../store/grants.ts';
import { collectBody } from './approval-bodies.ts';
import {
  grantBody,
  type IssuedBody,
  issuedBody,
  pendingBody,
  type ReleasedGrantBody,
  releasedGrantBody,
  type RenewedBody,
  renewedBody,
} from './answers.ts';
import type { Call } from './call.ts';
import { deliveryKeyOf, handOver } from './deliver.ts';
import { isOver, versionOf } from './grant-progress.ts';
import { notesOf } from './notes.ts';
import {
  emptyBody,
  grantPath,
  idempotencyHeader,
  issueGrantBody,
  noHeaders,
  noQuery,
  renewGrantBody,
  taskPath,
  waitForChange,
  waitForContainment,
} from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import { lineOfRevocation, viewOfCut, viewOfGrant, viewOfMinted, viewOfPending } from './views.ts';

const issueGrant = route({
  method: 'post',
  path: '/v1/tasks/{id}/grants',
  name: 'issueGrant',
  tag: 'grants',
  summary: 'Ask for one entitlement',
  description:
    'Policy decides now; the credential is in this answer and nowhere else. Where policy wants it approved first, the answer is 202: wait with `GET /v1/grants/{id}?wait=30`, then collect it.',
  params: taskPath,
  query: noQuery,
  headers: idempotencyHeader,
  body: { schema: issueGrantBody, take: 'always' },
  answers: {
    201: {
      says: 'The grant and its credential.',
      schema: issuedBody,
      headers: {
        Location: 'The grant.',
        'Idempotency-Replayed': '`true` when the key was used before: the first grant was ended, this one is new.',
      },
    },
    202: {
      says: 'It waits for its approval. Nothing was made.',
      schema: pendingBody,
      headers: {
        Location: 'The grant.',
        'Idempotency-Replayed': '`true` when the key was used before: this is the grant that it stands for.',
      },
    },
  },
  refusals: [
    'delivery_key_refused',
    'delivery_key_wrong',
    'delivery_required',
    'not_in_task',
    'issuer_may_not_state',
    'limit_reached',
    'killed',
    'denied_by_policy',
    'not_found',
    'task_ended',
    'task_suspended',
    'key_in_flight',
    'params_invalid',
    'impossible_value',
    'idempotency_key_reused',
    'ttl_below_minimum',
    'too_many_mints',
    'too_many_approvals',
    'target_unavailable',
    'target_refused',
  ],
  handle: async (call) => {
    const { entitlement, ttl_seconds: ttlSeconds = null, justification = null } = call.body;
    const delivery = deliveryKeyOf(call.body);
    const idempotencyKey = call.headers['Idempotency-Key'] ?? null;
    const asked = { entitlement, ttlSeconds, justification, delivery, idempotencyKey };
    const issued = await call.useCases.issueGrant(call.broker, call.agent(), call.taskId(), asked, call.context);
    const body = 'pending' in issued ? viewOfPending(issued) : await viewOfIssued(call, issued, delivery);
    notesOf(call.exchange.response).grant_id = body.grant.id;
    const replayed = issued.idempotencyReplayed ? { 'Idempotency-Replayed': 'true' } : {};
    const headers = { Location: `/v1/grants/${body.grant.id}`, ...replayed };
    return { status: 'pending' in issued ? 202 : 201, body, headers };
  },
});

/** With the credential, opened. */
async function viewOfIssued(
  call: Call<unknown, unknown, unknown>,
  issued: Issued,
  delivery: DeliveryKey | null,
): Promise<IssuedBody> {
  const credential = await handOver(call.exchange, issued, delivery);
  return { grant: viewOfMinted(issued.grant), credential, ...viewOfCut(issued.cut) };
}

const collectGrant = route({
  method: 'post',
  path: '/v1/grants/{id}/collect',
  name: 'collectGrant',
  tag: 'grants',
  summary: 'Collect a grant that was approved',
  description:
    'Once. Everything is decided again, and what is given is exactly what was approved or nothing. The credential is in this answer and nowhere else.',
  params: grantPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: collectBody, take: 'if-sent' },
  answers: { 201: { says: 'The grant and its credential.', schema: issuedBody } },
  refusals: [
    'approval_pending',
    'approval_over',
    'approval_stale',
    'delivery_not_approved',
    'delivery_key_refused',
    'delivery_key_wrong',
    'delivery_required',
    'not_in_task',
    'issuer_may_not_state',
    'limit_reached',
    'killed',
    'denied_by_policy',
    'not_found',
    'grant_ended',
    'task_ended',
    'task_suspended',
    'params_invalid',
    'ttl_below_minimum',
    'too_many_mints',
    'target_unavailable',
    'target_refused',
  ],
  handle: async (call) => {
    const delivery = deliveryKeyOf(call.body);
    const id = call.grantId();
    const issued = await call.useCases.collectGrant(call.broker, call.agent(), id, delivery, call.context);
    return { status: 201, body: await viewOfIssued(call, issued, delivery) };
  },
});

const readGrant = route({
  method: 'get',
  path: '/v1/grants/{id}',
  name: 'readGrant',
  tag: 'grants',
  summary: 'Read a grant and how far its revocation got',
  params: grantPath,
  query: waitForChange,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The grant as it is, or as it became.', schema: grantBody } },
  refusals: ['not_found', 'too_many_polls'],
  handle: async (call) => {
    const id = call.grantId();
    const read = () => call.useCases.readGrant(call.broker, call.caller, id);
    const now = await read();
    const { wait } = call.query;
    if (wait === undefined || isOver(now)) return { status: 200, body: viewOfGrant(now) };
    const first = versionOf(now);
    const changed = (grant: ReadGrant) => versionOf(grant) !== first;
    const later = await call.poll(wait, (seconds, context) =>
      call.useCases.waitUntil(call.broker, [now.grant.taskId], seconds, context, read, changed),
    );
    return { status: 200, body: viewOfGrant(later) };
  },
});

const renewGrant = route({
  method: 'post',
  path: '/v1/grants/{id}/renew',
  name: 'renewGrant',
  tag: 'grants',
  summary: 'Ask for a later deadline',
  description: 'A new decision and a new deadline, counted from now, never past the task’s.',
  params: grantPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: renewGrantBody, take: 'always' },
  answers: { 200: { says: 'The grant with its new deadline.', schema: renewedBody } },
  refusals: [
    'delivery_key_refused',
    'delivery_key_wrong',
    'delivery_required',
    'not_in_task',
    'issuer_may_not_state',
    'killed',
    'approval_required',
    'denied_by_policy',
    'not_found',
    'grant_ended',
    'grant_per_call',
    'task_ended',
    'task_suspended',
    'impossible_value',
    'target_unavailable',
  ],
  handle: async (call) => {
    const delivery = deliveryKeyOf(call.body);
    const { grant, credential, expiresAt, cut } = await call.useCases.renewGrant(
      call.broker,
      call.agent(),
      call.grantId(),
      call.body.ttl_seconds,
      delivery,
      call.context,
    );
    const body: RenewedBody = {
      grant: viewOfMinted(grant),
      ...(credential && { credential: await handOver(call.exchange, { grant, credential, expiresAt }, delivery) }),
      ...viewOfCut(cut),
    };
    return { status: 200, body };
  },
});

const releaseGrant = route({
  method: 'delete',
  path: '/v1/grants/{id}',
  name: 'releaseGrant',
  tag: 'grants',
  summary: 'Release a grant before its deadline',
  description: 'Said again, it answers the same.',
  params: grantPath,
  query: waitForContainment,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  ends: true,
  answers: {
    202: { says: 'It has ended and is being taken back.', schema: releasedGrantBody },
    200: { says: 'With `wait`: it is contained.', schema: releasedGrantBody },
  },
  refusals: ['not_found', 'operator_only'],
  handle: async (call) => {
    const id = call.grantId();
    const { wait } = call.query;
    const released = await call.useCases.releaseGrant(call.broker, call.caller, id, call.context);
    const read = () => call.useCases.readGrant(call.broker, call.caller, id);
    const grant =
      wait === undefined || isDone(released)
        ? released
        : await call.poll(wait, (seconds, context) =>
            call.useCases.waitUntil(call.broker, [released.grant.taskId], seconds, context, read, isDone),
          );
    const { revocation } = grant;
    const revocations = revocation === null ? [] : [lineOfRevocation({ ...grant, revocation })];
    const body: ReleasedGrantBody = { grant: viewOfGrant(grant), revocations };
    return { status: wait !== undefined && isDone(grant) ? 200 : 202, body };
  },
});

/** Contained, or nothing was made that could be. */
function isDone({ grant, revocation }: ReadGrant): boolean {
  return revocation === null || isContained({ grant, revocation });
}

export const grantRoutes: readonly Route[] = [issueGrant, collectGrant, readGrant, renewGrant, releaseGrant];
