import { pauseBody, targetControlBody, targetPath } from './queue-bodies.ts';
import { viewOfControl } from './queue-views.ts';
import { emptyBody, noHeaders, noQuery } from './requests.ts';
import { type Route, route } from './route.ts';

const pauseTarget = route({
  method: 'post',
  path: '/v1/targets/{id}/pause',
  name: 'pauseTarget',
  tag: 'operating',
  summary: 'Leave a target alone for a while',
  description:
    'Grants that ended early are not taken back there before their deadline, and none is issued or renewed. What reaches its deadline is ended all the same, unless `deadlines` is `also`. Role: operator.',
  params: targetPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: pauseBody, take: 'always' },
  answers: { 200: { says: 'The pause that stands now.', schema: targetControlBody } },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const target = call.targetName();
    const { reason, deadlines } = call.body;
    const request = { reason, deadlinesHeld: deadlines === 'also' };
    const pause = await call.useCases.pauseTarget(call.broker, call.caller, target, request, call.context);
    return { status: 200, body: viewOfControl(target, pause) };
  },
});

const resumeTarget = route({
  method: 'post',
  path: '/v1/targets/{id}/resume',
  name: 'resumeTarget',
  tag: 'operating',
  summary: 'Go on with a target',
  description: 'What was held back is tried at once. Role: operator.',
  params: targetPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  answers: { 200: { says: 'It is not paused.', schema: targetControlBody } },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const target = call.targetName();
    await call.useCases.resumeTarget(call.broker, call.caller, target, call.context);
    return { status: 200, body: viewOfControl(target, undefined) };
  },
});

export const targetRoutes: readonly Route[] = [pauseTarget, resumeTarget];
