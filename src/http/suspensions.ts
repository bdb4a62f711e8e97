import { z } from 'zod';
import type { TaskId } from '../domain/ids.ts';
import { taskBody } from './answers.ts';
import type { Call } from './call.ts';
import { reason } from './queue-bodies.ts';
import { noHeaders, noQuery, taskPath } from './requests.ts';
import { type Route, route } from './route.ts';
import { viewOfTask } from './views.ts';
import type { Answer } from './write.ts';

const suspendBody = z.strictObject({ reason }).meta({ id: 'SuspendTask' });
const resumeBody = z
  .strictObject({ reason: reason.optional().meta({ description: 'Why it may go on.' }) })
  .meta({ id: 'ResumeTask' });

const suspendTask = route({
  method: 'post',
  path: '/v1/tasks/{id}/suspend',
  name: 'suspendTask',
  tag: 'operating',
  summary: 'Suspend a task',
  description:
    'Until it is resumed nothing is issued, renewed or permitted to the task and to all below it; what they hold is revoked. Said again, it answers the same. Role: operator, with all that the task may ask for in scope.',
  params: taskPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: suspendBody, take: 'always' },
  ends: true,
  answers: { 200: { says: 'It is suspended.', schema: taskBody } },
  refusals: ['operator_only', 'not_found', 'task_ended', 'task_offered'],
  handle: async (call) => {
    const id = call.taskId();
    await call.useCases.suspendTask(call.broker, call.caller, id, call.body.reason, call.context);
    return await answer(call, id);
  },
});

const resumeTask = route({
  method: 'post',
  path: '/v1/tasks/{id}/resume',
  name: 'resumeTask',
  tag: 'operating',
  summary: 'Let a suspended task go on',
  description:
    'Whatever suspended it, a signal too. What was revoked stays revoked. Said again, it answers the same. Role: operator, as for suspending it.',
  params: taskPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: resumeBody, take: 'if-sent' },
  answers: { 200: { says: 'It is active.', schema: taskBody } },
  refusals: ['operator_only', 'not_found', 'task_ended', 'task_offered'],
  handle: async (call) => {
    const id = call.taskId();
    await call.useCases.resumeTask(call.broker, call.caller, id, call.body.reason ?? null, call.context);
    return await answer(call, id);
  },
});

async function answer(call: Call<unknown, unknown, unknown>, id: TaskId): Promise<Answer> {
  return { status: 200, body: viewOfTask(await call.useCases.viewTask(call.broker, id)) };
}

export const suspensionRoutes: readonly Route[] = [suspendTask, resumeTask];
