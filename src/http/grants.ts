import { isContained } from '../broker/read.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import {
  grantBody,
  type IssuedBody,
  issuedBody,
  type ReleasedGrantBody,
  releasedGrantBody,
  type RenewedBody,
  renewedBody,
} from './answers.ts';
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
import { lineOfRevocation, viewOfCut, viewOfGrant } from './views.ts';

const issueGrant = route({
  method: 'post',
  path: '/v1/tasks/{id}/grants',
  name: 'issueGrant',
  tag: 'grants',
  summary: 'Ask for one entitlement',
  description: 'Policy decides now; the credential is in this answer and nowhere else.',
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
    'target_unavailable',
    'target_refused',
  ],
  handle: async (call) => {
    const { entitlement, ttl_seconds: ttlSeconds = null, justification = null } = call.body;
    const delivery = deliveryKeyOf(call.body);
    const idempotencyKey = call.headers['Idempotency-Key'] ?? null;
    const asked = { entitlement, ttlSeconds, justification, delivery, idempotencyKey };
    const issued = await call.useCases.issueGrant(call.broker, call.agent(), call.taskId(), asked, call.context);
    const grant = viewOfGrant(issued.grant);
    notesOf(call.exchange.response).grant_id = grant.id;
    const credential = await handOver(call.exchange, issued, delivery);
    const body: IssuedBody = { grant, credential, ...viewOfCut(issued.cut) };
    const replayed = issued.idempotencyReplayed ? { 'Idempotency-Replayed': 'true' } : {};
    return { status: 201, body, headers: { Location: `/v1/grants/${grant.id}`, ...replayed } };
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
    const changed = (grant: GrantWithRevocation) => versionOf(grant) !== first;
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
      grant: viewOfGrant(grant),
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
    const grant =
      wait === undefined
        ? released
        : await call.poll(wait, (seconds, context) =>
            call.useCases.waitUntil(
              call.broker,
              [released.grant.taskId],
              seconds,
              context,
              () => call.useCases.readGrant(call.broker, call.caller, id),
              isContained,
            ),
          );
    const body: ReleasedGrantBody = { grant: viewOfGrant(grant), revocations: [lineOfRevocation(grant)] };
    return { status: wait !== undefined && isContained(grant) ? 200 : 202, body };
  },
});

export const grantRoutes: readonly Route[] = [issueGrant, readGrant, renewGrant, releaseGrant];
