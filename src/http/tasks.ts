import { isContained, type TaskView } from '../broker/read.ts';
import type { TaskId } from '../domain/ids.ts';
import { isFinal } from '../domain/machine.ts';
import { taskMachine } from '../domain/task.ts';
import type { GrantWithRevocation } from '../store/grants.ts';
import { type EndedTaskBody, endedTaskBody, taskBody, timelineBody, type TimelineBody } from './answers.ts';
import type { Call } from './call.ts';
import { isOver, versionOf } from './grant-progress.ts';
import { openTask } from './open-task.ts';
import { emptyBody, noHeaders, noQuery, taskPath, waitForChange, waitForContainment } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import { lineOfRevocation, viewOfEvent, viewOfTask } from './views.ts';
import type { Answer } from './write.ts';

const readTask = route({
  method: 'get',
  path: '/v1/tasks/{id}',
  name: 'readTask',
  tag: 'tasks',
  summary: 'Read a task, its grants and its children',
  params: taskPath,
  query: waitForChange,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The task as it is, or as it became.', schema: taskBody } },
  refusals: ['not_found', 'too_many_polls'],
  handle: async (call) => {
    const id = call.taskId();
    const read = () => call.useCases.readTask(call.broker, call.caller, id);
    const { wait } = call.query;
    if (wait === undefined) return { status: 200, body: viewOfTask(await read()) };
    let first: string | undefined;
    const changed = (view: TaskView) => {
      const version = [view.task, ...view.children]
        .map((task) => `${task.id} ${task.state} ${task.phase}`)
        .concat(view.grants.map(versionOf))
        .join();
      first ??= version;
      return version !== first || (isFinal(taskMachine, view.task.state) && view.grants.every(isOver));
    };
    const view = await call.poll(wait, (seconds, context) =>
      call.useCases.waitUntil(call.broker, [id], seconds, context, read, changed),
    );
    return { status: 200, body: viewOfTask(view) };
  },
});

const timeline = route({
  method: 'get',
  path: '/v1/tasks/{id}/timeline',
  name: 'readTimeline',
  tag: 'tasks',
  summary: 'Read the evidence of a task, in order',
  params: taskPath,
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'What happened, oldest first.', schema: timelineBody } },
  refusals: ['not_found'],
  handle: async (call) => {
    const { limits } = call.exchange;
    const admit = (share: number) => limits.countLong(call.caller, share);
    const events = await call.useCases.readTimeline(call.broker, call.caller, call.taskId(), admit);
    const body: TimelineBody = { items: events.map(viewOfEvent) };
    return { status: 200, body };
  },
});

/** Complete and cancel: alike but for the word. */
function ending(word: 'complete' | 'cancel', how: 'completed' | 'cancelled'): Route {
  return route({
    method: 'post',
    path: `/v1/tasks/{id}/${word}`,
    name: `${word}Task`,
    tag: 'tasks',
    summary: word === 'complete' ? 'Complete a task' : 'Cancel a task',
    description: 'Takes back every grant of the task and of its descendants. Said again, it answers the same.',
    params: taskPath,
    query: waitForContainment,
    headers: noHeaders,
    body: { schema: emptyBody, take: 'if-sent' },
    ends: true,
    answers: {
      202: { says: 'It has ended; what it held is being taken back.', schema: endedTaskBody },
      200: { says: 'With `wait`: everything is contained.', schema: endedTaskBody },
    },
    refusals: ['not_found', 'operator_only', 'task_ended'],
    handle: (call) => end(call, how),
  });
}

async function end(
  call: Call<unknown, { readonly wait?: number | undefined }, unknown>,
  how: 'completed' | 'cancelled',
): Promise<Answer> {
  const id = call.taskId();
  const { wait } = call.query;
  const ended = await call.useCases.endTask(call.broker, call.caller, id, how, call.context);
  const grants =
    wait === undefined
      ? ended.grants
      : await call.poll(wait, (seconds, context) => call.useCases.waitContained(call.broker, id, seconds, context));
  return {
    status: wait !== undefined && grants.every(isContained) ? 200 : 202,
    body: await viewOfEnded(call, id, grants),
  };
}

/** One line for each grant of the tree; the task's own grants are shown as they are in those lines. */
async function viewOfEnded(
  call: Call<unknown, unknown, unknown>,
  id: TaskId,
  tree: readonly GrantWithRevocation[],
): Promise<EndedTaskBody> {
  const { task, children, grants: own } = await call.useCases.viewTask(call.broker, id);
  const ended = new Map(tree.map((each) => [each.grant.id, each]));
  const grants = own.map((each) => ended.get(each.grant.id) ?? each);
  return { task: viewOfTask({ task, children, grants }), revocations: tree.map(lineOfRevocation) };
}

export const taskRoutes: readonly Route[] = [
  openTask,
  readTask,
  timeline,
  ending('complete', 'completed'),
  ending('cancel', 'cancelled'),
];
