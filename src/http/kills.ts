import type { KillRequest } from '../broker/kill.ts';
import { type KillId, parseWireId, wireId } from '../domain/ids.ts';
import { MayflyError } from '../domain/errors.ts';
import type { Kill } from '../store/kills.ts';
import { answerOfAwaiting, awaitingAnswer } from './awaiting.ts';
import {
  confirmBody,
  confirmedBody,
  killBody,
  killPath,
  killsPageBody,
  killsQuery,
  type KillView,
  killView,
  liftBody,
} from './kill-bodies.ts';
import { afterOf, cursorOf } from './queue-views.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';

const raiseKill = route({
  method: 'post',
  path: '/v1/kill',
  name: 'raiseKill',
  tag: 'operating',
  summary: 'Stop an agent, a task, an issuer, an entitlement, a target, or all',
  description:
    'Blocks, then revokes, in one transaction: from the answer on nothing of it is opened, delegated, claimed, issued or renewed, until it is lifted. Tasks of an agent, an issuer or all are ended with all below them; of an entitlement or a target the grants are. No pause of a target holds these revocations back. Role: operator, with all that it reaches to in scope; for agents, issuers and all one that holds everywhere.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: killBody, take: 'always' },
  ends: true,
  answers: {
    201: { says: 'It stands, and what it ended is being taken back.', schema: killView },
    200: { says: 'One stood already: this one.', schema: killView },
  },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const { reason, ...said } = call.body;
    const { kill, repeated } = await call.useCases.raiseKill(
      call.broker,
      call.caller,
      requestOf(said),
      reason,
      call.context,
    );
    return { status: repeated ? 200 : 201, body: viewOfKill(kill) };
  },
});

const listKills = route({
  method: 'get',
  path: '/v1/kill',
  name: 'listKills',
  tag: 'operating',
  summary: 'List the kills',
  description: 'The latest first, also those that were lifted. Role: viewer.',
  query: killsQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of the kills.', schema: killsPageBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const { standing, limit, cursor } = call.query;
    const before = cursor === undefined ? null : afterOf<KillId>(cursor);
    const { items, next } = await call.useCases.listKills(call.broker, call.caller, standing, before, limit);
    const body = { items: items.map(viewOfKill), next_cursor: next === undefined ? null : cursorOf(next) };
    return { status: 200, body };
  },
});

const liftKill = route({
  method: 'delete',
  path: '/v1/kill/{id}',
  name: 'liftKill',
  tag: 'operating',
  summary: 'Lift a kill',
  description:
    'It may be asked for again. What the kill has ended stays ended. Where the catalog wants four eyes for it, another operator has to ask for the very same. Role: operator, as for raising it.',
  params: killPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: liftBody, take: 'if-sent' },
  answers: { 200: { says: 'It does not stand.', schema: killView }, 202: awaitingAnswer },
  refusals: ['operator_only', 'not_found', 'second_person_needed'],
  handle: async (call) => {
    const reason = call.body.reason ?? null;
    const kill = await call.useCases.liftKill(call.broker, call.caller, call.killId(), reason, call.context);
    if ('expiresAt' in kill) return answerOfAwaiting(kill);
    return { status: 200, body: viewOfKill(kill) };
  },
});

const confirmKills = route({
  method: 'post',
  path: '/v1/kill/confirm',
  name: 'confirmKills',
  tag: 'operating',
  summary: 'Confirm the kills after a failover of the store',
  description:
    'Says that the kills that stand are all that shall. A store that failed over, or was restored, may have forgotten some; a replica that lived through that raises them again and confirms by itself. Where none did, nothing is issued until an operator has looked at the list. Role: operator, one that holds everywhere.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: confirmBody, take: 'always' },
  answers: { 200: { says: 'They are confirmed.', schema: confirmedBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    await call.useCases.confirmKills(call.broker, call.caller, call.body.reason, call.context);
    return { status: 200, body: { confirmed: true as const } };
  },
});

export const killRoutes: readonly Route[] = [raiseKill, listKills, liftKill, confirmKills];

type Said = Exclude<KillRequest, { scope: 'task' }> | { readonly scope: 'task'; readonly id: string };

function requestOf(said: Said): KillRequest {
  if (said.scope !== 'task') return said;
  const id = parseWireId('task', said.id);
  if (id === undefined) throw new MayflyError('not_found');
  return { scope: 'task', id };
}

function viewOfKill({ id, scope, subject, reason, by, at, ended, lifted }: Kill): KillView {
  return {
    id: wireId('kill', id),
    scope,
    subject: scope === 'all' ? null : subject,
    standing: lifted === null,
    ...{ reason, by, since: at.toISOString(), ended: { ...ended } },
    ...(lifted === null
      ? {}
      : {
          lifted: {
            at: lifted.at.toISOString(),
            by: lifted.by,
            ...(lifted.reason === null ? {} : { reason: lifted.reason }),
          },
        }),
  };
}
