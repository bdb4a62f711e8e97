import { isContained } from '../broker/read.ts';
import { wireId } from '../domain/ids.ts';
import type { ProblemCode } from '../domain/problems.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import { claimedBody, type DelegatedBody, delegatedBody, type TakenEventBody, takenEventBody } from './answers.ts';
import {
  delegateBody,
  emptyBody,
  noHeaders,
  noQuery,
  takeEventBody,
  taskPath,
  waitForContainment,
} from './requests.ts';
import { type Route, route } from './route.ts';
import { signedRefusals } from './signed-refusals.ts';
import { standingOf, viewOfTask } from './views.ts';

/** What is signed of a task that is there already. */
const signedOfTask: readonly ProblemCode[] = [
  ...signedRefusals,
  'request_task_wrong',
  'not_found',
  'task_ended',
  'task_suspended',
  'task_offered',
];

const delegate = route({
  method: 'post',
  path: '/v1/tasks/{id}/children',
  name: 'delegateTask',
  tag: 'tasks',
  summary: 'Offer a part of a task to another workload',
  description:
    'Only the task’s owner, with a delegation that its own key or the task’s issuer signed. The child lives once the workload claims it. The same delegation again answers 200 with the same child.',
  params: taskPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: delegateBody, take: 'always' },
  answers: {
    201: { says: 'The child is offered.', schema: delegatedBody, headers: { Location: 'The child.' } },
    200: { says: 'It was offered before by this very delegation.', schema: delegatedBody },
  },
  refusals: [
    ...signedOfTask,
    'invalid_authorization_details',
    'key_binding_unsupported',
    'request_key_missing',
    'request_deadline_past',
    'excessive_delegation',
    'killed',
    'not_in_phase',
    'tree_full',
    'too_many_tasks',
  ],
  handle: async (call) => {
    const { delegation } = call.body;
    const delegated = await call.useCases.delegateTask(
      call.broker,
      call.agent(),
      call.taskId(),
      delegation,
      call.context,
    );
    const { task, cut, replayed } = delegated;
    const body: DelegatedBody = {
      task: standingOf(task),
      ...(cut !== null && {
        cut: {
          ...(cut.askedNotAfter && { asked_not_after: cut.askedNotAfter.toISOString() }),
          ...(cut.askedMaxTtlSeconds !== undefined && { asked_max_ttl_seconds: cut.askedMaxTtlSeconds }),
        },
      }),
    };
    return replayed ? { status: 200, body } : { status: 201, body, headers: { Location: `/v1/tasks/${body.task.id}` } };
  },
});

const claim = route({
  method: 'post',
  path: '/v1/tasks/{id}/claim',
  name: 'claimTask',
  tag: 'tasks',
  summary: 'Take a task that was delegated to you',
  description: 'By the workload and the key that the delegation names. Said again, it answers the same.',
  params: taskPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: emptyBody, take: 'if-sent' },
  answers: { 200: { says: 'It is yours.', schema: claimedBody } },
  refusals: [
    'not_found',
    'task_ended',
    'task_suspended',
    'not_in_phase',
    'excessive_delegation',
    'killed',
    'issuer_may_not_state',
  ],
  handle: async (call) => {
    const { id } = await call.useCases.claimTask(call.broker, call.agent(), call.taskId(), call.context);
    return { status: 200, body: { task: viewOfTask(await call.useCases.viewTask(call.broker, id)) } };
  },
});

const tellEvent = route({
  method: 'post',
  path: '/v1/tasks/{id}/events',
  name: 'tellTaskEvent',
  tag: 'tasks',
  ends: true,
  summary: 'Carry what a task’s issuer says of it',
  description:
    'Completes or cancels the task, or moves its phase. The word is the issuer’s: any believed caller may carry it. It counts once, and is answered again to the same caller only.',
  params: taskPath,
  query: waitForContainment,
  headers: noHeaders,
  body: { schema: takeEventBody, take: 'always' },
  answers: {
    202: { says: 'It has ended; what it held is being taken back.', schema: takenEventBody },
    200: { says: 'Its phase has moved. With `wait`, of an end: everything is contained.', schema: takenEventBody },
  },
  refusals: [...signedOfTask, 'phase_passed'],
  handle: async (call) => {
    const id = call.taskId();
    const { wait } = call.query;
    const { task, grants } = await call.useCases.takeEvent(call.broker, call.caller, id, call.body.event, call.context);
    if (grants === null) return { status: 200, body: { task: standingOf(task) } satisfies TakenEventBody };
    const left =
      wait === undefined
        ? grants
        : await call.poll(wait, (seconds, context) => call.useCases.waitContained(call.broker, id, seconds, context));
    const body: TakenEventBody = { task: standingOf(task), revocations: left.map(toldOf) };
    return { status: wait !== undefined && left.every(isContained) ? 200 : 202, body };
  },
});

/** Of what the task held its carrier learns only how far it is taken back. */
function toldOf({ grant, revocation }: GrantWithRevocation): NonNullable<TakenEventBody['revocations']>[number] {
  return { id: wireId('rev', revocation.id), target: grant.target, state: revocation.state };
}

export const delegationRoutes: readonly Route[] = [delegate, claim, tellEvent];
