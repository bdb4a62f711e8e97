import { answerOfAwaiting, awaitingAnswer } from './awaiting.ts';
import { parseWireId, type RevocationId } from '../domain/ids.ts';
import { queuePageBody, queueQuery, revocationPath, storyBody, writeOffBody } from './queue-bodies.ts';
import { afterOf, viewOfPage, viewOfStory } from './queue-views.ts';
import { emptyBody, noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';

const listRevocations = route({
  method: 'get',
  path: '/v1/revocations',
  name: 'listRevocations',
  tag: 'operating',
  summary: 'Read the queue of revocations',
  description: 'Without `state`: what is due, waiting, running, contained but not clean, or written off. Role: viewer.',
  query: queueQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of the queue, and counts of all of it.', schema: queuePageBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const { state, target, ended_by: endedBy, task, grant, overdue, since, limit, cursor } = call.query;
    const filter = {
      state,
      target,
      endedBy,
      taskId: task === undefined ? undefined : parseWireId('task', task),
      grantId: grant === undefined ? undefined : parseWireId('grt', grant),
      overdue,
      since,
    };
    const after = cursor === undefined ? null : afterOf<RevocationId>(cursor);
    const page = await call.useCases.readQueuePage(call.broker, call.caller, filter, after, limit);
    return { status: 200, body: viewOfPage(page) };
  },
});

const readRevocation = route({
  method: 'get',
  path: '/v1/revocations/{id}',
  name: 'readRevocation',
  tag: 'operating',
  summary: 'Read one revocation and what was done about it',
  description: 'Role: viewer.',
  params: revocationPath,
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The revocation, its events, and its target’s pause.', schema: storyBody } },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => ({
    status: 200,
    body: viewOfStory(await call.useCases.readRevocation(call.broker, call.caller, call.revocationId())),
  }),
});

const retryRevocation = route({
  method: 'post',
  path: '/v1/revocations/{id}/retry',
  name: 'retryRevocation',
  tag: 'operating',
  summary: 'Try a revocation now',
  description: 'It does not wait for its next try. Its attempts count on. Role: operator.',
  params: revocationPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  ends: true,
  answers: { 202: { says: 'It is tried now, or was in hand already.', schema: storyBody } },
  refusals: ['operator_only', 'not_found', 'revocation_not_due', 'revocation_over'],
  handle: async (call) => {
    const { id } = await call.useCases.retryRevocation(call.broker, call.caller, call.revocationId(), call.context);
    return { status: 202, body: viewOfStory(await call.useCases.tellRevocation(call.broker, id)) };
  },
});

const writeOffRevocation = route({
  method: 'post',
  path: '/v1/revocations/{id}/write-off',
  name: 'writeOffRevocation',
  tag: 'operating',
  summary: 'Give a revocation up, with a reason',
  description:
    'Nothing tries it again, until the reconciler finds that it can be used. The grant stays `revoking` and is counted apart: nobody says that the credential is gone. Where the catalog wants four eyes for it, another operator has to ask for the very same. Role: operator.',
  params: revocationPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: writeOffBody, take: 'always' },
  answers: { 200: { says: 'It is written off.', schema: storyBody }, 202: awaitingAnswer },
  refusals: [
    'operator_only',
    'not_found',
    'revocation_not_due',
    'revocation_running',
    'revocation_over',
    'second_person_needed',
  ],
  handle: async (call) => {
    const { reason } = call.body;
    const id = call.revocationId();
    const written = await call.useCases.writeOffRevocation(call.broker, call.caller, id, reason, call.context);
    if ('expiresAt' in written) return answerOfAwaiting(written);
    return { status: 200, body: viewOfStory(await call.useCases.tellRevocation(call.broker, id)) };
  },
});

export const revocationRoutes: readonly Route[] = [
  listRevocations,
  readRevocation,
  retryRevocation,
  writeOffRevocation,
];
