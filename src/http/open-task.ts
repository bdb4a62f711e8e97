import type { OpenedTask } from '../broker/open-task.ts';
import type { TaskView } from '../broker/read.ts';
import { wireId } from '../domain/ids.ts';
import type { Task } from '../domain/task.ts';
import type { DeliveryKey } from '../identity/delivery-key.ts';
import type { WorkloadCaller } from '../identity/types.ts';
import { type OpenedBody, openedBody } from './answers.ts';
import type { Call } from './call.ts';
import { deliveryKeyOf, handOver } from './deliver.ts';
import { notesOf } from './notes.ts';
import { asMayflyError, problemOf } from './problem.ts';
import { noHeaders, noQuery, openTaskBody } from './requests.ts';
import { route } from './route.ts';
import { signedRefusals } from './signed-refusals.ts';
import { viewOfGrant, viewOfPending, viewOfTask } from './views.ts';

type Issued = NonNullable<OpenedBody['issued']>[number];

export const openTask = route({
  method: 'post',
  path: '/v1/tasks',
  name: 'openTask',
  tag: 'tasks',
  summary: 'Open a task from a signed task request',
  description:
    'With `issue`, each entitlement named is issued in the same call; the task is opened whatever becomes of them. The same request from the same workload answers 200 with the same task, and mints nothing.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: openTaskBody, take: 'always' },
  answers: {
    201: { says: 'The task is open.', schema: openedBody, headers: { Location: 'The task.' } },
    200: {
      says: 'The task was opened before by this very request. Its grants come without credentials.',
      schema: openedBody,
    },
  },
  refusals: [
    ...signedRefusals,
    'invalid_authorization_details',
    'key_binding_unsupported',
    'delivery_key_refused',
    'request_deadline_past',
    'request_key_missing',
    'request_key_wrong',
    'workload_not_named',
    'killed',
    'external_id_used',
    'too_many_tasks',
  ],
  handle: async (call) => {
    const { request, issue } = call.body;
    const delivery = deliveryKeyOf(call.body);
    const agent = call.agent();
    const opened = await call.useCases.openTask(call.broker, agent, request, call.context);
    notesOf(call.exchange.response).task_id = wireId('task', opened.task.id);
    const issued =
      opened.replayed || issue === undefined
        ? undefined
        : await Promise.all(issue.map((entitlement) => issueOne(call, agent, opened.task, entitlement, delivery)));
    const task = viewOfTask(await viewOpened(call, opened, issued !== undefined));
    const body: OpenedBody = {
      task,
      ...(issued === undefined ? {} : { issued }),
      ...(opened.cut === null
        ? {}
        : { cut: { by: opened.cut.by, asked_not_after: opened.cut.askedNotAfter.toISOString() } }),
    };
    return opened.replayed
      ? { status: 200, body }
      : { status: 201, body, headers: { Location: `/v1/tasks/${task.id}` } };
  },
});

/** One result for one entitlement: the grant with its credential, or why not. */
async function issueOne(
  call: Call<unknown, unknown, unknown>,
  agent: WorkloadCaller,
  task: Task,
  entitlement: string,
  delivery: DeliveryKey | null,
): Promise<Issued> {
  const { deps } = call.exchange;
  const asked = { entitlement, ttlSeconds: null, justification: null, delivery, idempotencyKey: null };
  try {
    const delivered = await call.useCases.issueGrant(call.broker, agent, task.id, asked, call.context);
    if ('pending' in delivered) return { entitlement, ...viewOfPending(delivered) };
    const credential = await handOver(call.exchange, delivered, delivery);
    return { entitlement, grant: viewOfGrant(delivered.grant), credential };
  } catch (thrown) {
    const error = asMayflyError(thrown);
    deps.metrics.refused(error.code);
    if (error.status >= 500)
      deps.log.warn(
        { request_id: call.context.requestId, entitlement, error },
        'an entitlement asked for with its task was not issued',
      );
    return { entitlement, problem: problemOf(error, call.context.requestId) };
  }
}

/** A task opened just now has nothing hanging on it, unless something was issued with it. */
async function viewOpened(
  call: Call<unknown, unknown, unknown>,
  { task, replayed }: OpenedTask,
  issued: boolean,
): Promise<TaskView> {
  return replayed || issued ? await call.useCases.viewTask(call.broker, task.id) : { task, grants: [], children: [] };
}
