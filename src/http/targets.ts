import { pauseBody, targetControlBody, targetPath } from './queue-bodies.ts';
import { viewOfControl } from './queue-views.ts';
import { emptyBody, noHeaders, noQuery, waitForRun } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import { askedRunBody, checkedBody, targetsPageBody, targetsQuery } from './target-bodies.ts';
import { viewOfAskedRun, viewOfChecked, viewOfTargets } from './target-views.ts';

/** For all canaries of a check together: shorter than most proxies wait. */
const CHECK_SECONDS = 40;

const listTargets = route({
  method: 'get',
  path: '/v1/targets',
  name: 'listTargets',
  tag: 'operating',
  summary: 'List the targets',
  description:
    'With who paused one, since when and why, and what was found when it was last compared with the store. Role: viewer.',
  query: targetsQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of the targets, by name.', schema: targetsPageBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const { limit, cursor } = call.query;
    const after = cursor === undefined ? null : Buffer.from(cursor, 'base64url').toString();
    const { items, next } = await call.useCases.listTargets(call.broker, call.caller, after, limit);
    return { status: 200, body: viewOfTargets(items, next) };
  },
});

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
  ends: true,
  answers: { 200: { says: 'It is not paused.', schema: targetControlBody } },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const target = call.targetName();
    await call.useCases.resumeTarget(call.broker, call.caller, target, call.context);
    return { status: 200, body: viewOfControl(target, undefined) };
  },
});

const reconcileTarget = route({
  method: 'post',
  path: '/v1/targets/{id}/reconcile',
  name: 'reconcileTarget',
  tag: 'operating',
  summary: 'Compare a target with the store now',
  description:
    'One broker at a time reads a target: a run that is under way is followed by the one asked for. Said again before that began, it is the same run. Role: operator.',
  params: targetPath,
  query: waitForRun,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  answers: {
    202: { says: 'It is asked for. `GET /v1/targets` shows what it finds.', schema: askedRunBody },
    200: { says: 'With `wait`: it is over.', schema: askedRunBody },
  },
  refusals: ['operator_only', 'not_found', 'too_many_polls'],
  handle: async (call) => {
    const target = call.targetName();
    const asked = await call.poll(call.query.wait ?? 0, (seconds, context) =>
      call.useCases.reconcileTarget(call.broker, call.caller, target, seconds, context),
    );
    return { status: asked.state === 'over' ? 200 : 202, body: viewOfAskedRun(asked) };
  },
});

const checkTarget = route({
  method: 'post',
  path: '/v1/targets/{id}/check',
  name: 'checkTarget',
  tag: 'operating',
  summary: 'Run the canary of each entitlement of a target',
  description: `Mints, logs in, does what is allowed, is refused what is not, revokes and verifies; also on a paused target. What is not reached within ${CHECK_SECONDS} seconds has failed. Role: operator.`,
  params: targetPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  answers: { 200: { says: 'What was tried. `ok` only if all of it went well.', schema: checkedBody } },
  refusals: ['operator_only', 'not_found', 'too_many_polls'],
  handle: async (call) => {
    const target = call.targetName();
    const checked = await call.poll(CHECK_SECONDS, (seconds, context) =>
      call.useCases.checkTarget(call.broker, call.caller, target, seconds, context),
    );
    return { status: 200, body: viewOfChecked(target, checked) };
  },
});

export const targetRoutes: readonly Route[] = [listTargets, pauseTarget, resumeTarget, reconcileTarget, checkTarget];
