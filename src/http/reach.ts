import { z } from 'zod';
import type { Reach, ReachedItem } from '../broker/reach.ts';
import { MayflyError } from '../domain/errors.ts';
import { type TaskId, wireId } from '../domain/ids.ts';
import { workloadId } from '../domain/task.ts';
import type { ReachOf } from '../store/reach.ts';
import type { Call } from './call.ts';
import { afterOf, cursorOf } from './queue-views.ts';
import { reachBody, type ReachBody, reachQuery } from './reach-bodies.ts';
import { noHeaders, taskPath } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import type { Answer } from './write.ts';

const common = {
  method: 'get',
  tag: 'operating',
  query: reachQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'What it reaches.', schema: reachBody } },
} as const;
const says =
  'What is not yet contained can be used; what could be asked for is decided now, as an ask would be, and nothing is changed. Role: viewer; what is in scope.';

const readWorkloadReach = route({
  ...common,
  path: '/v1/workloads/{id}/reach',
  name: 'readWorkloadReach',
  summary: 'Everything that a workload reaches',
  description: `Its tasks, with all that they delegated to. ${says}`,
  params: z.object({
    id: z.string().meta({ description: '`<source>:<subject>`, percent-encoded.', example: 'dev:agent-recon' }),
  }),
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const id = call.workloadName();
    return await read(call, { kind: 'workload', id });
  },
});

const readTaskReach = route({
  ...common,
  path: '/v1/tasks/{id}/reach',
  name: 'readTaskReach',
  summary: 'Everything that a task reaches',
  description: `With all that it delegated to. ${says}`,
  params: taskPath,
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => await read(call, { kind: 'task', id: call.taskId() }),
});

const readEntitlementReach = route({
  ...common,
  path: '/v1/entitlements/{target}/{name}/reach',
  name: 'readEntitlementReach',
  summary: 'Who reaches an entitlement',
  description: `Who holds it, and which tasks could ask for it. ${says}`,
  params: z.object({
    target: z.string().meta({ description: 'The target.', example: 'ledger-db' }),
    name: z.string().meta({ description: 'The entitlement’s name on it.', example: 'read-invoices' }),
  }),
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => await read(call, { kind: 'entitlement', id: call.entitlementName() }),
});

export const reachRoutes: readonly Route[] = [readWorkloadReach, readTaskReach, readEntitlementReach];

async function read(call: Call<unknown, z.output<typeof reachQuery>, unknown>, of: ReachOf): Promise<Answer> {
  if (call.caller.kind !== 'operator') throw new MayflyError('operator_only');
  const { limit, cursor } = call.query;
  const after = cursor === undefined ? null : afterOf<TaskId>(cursor);
  const reach = await call.useCases.readReach(call.broker, call.caller, of, after, limit, call.context);
  return { status: 200, body: viewOfReach(reach) };
}

function viewOfReach({ of, revision, tasks, grants, items, next }: Reach): ReachBody {
  const id = of.kind === 'task' ? wireId('task', of.id) : of.id;
  return {
    ...{ of: of.kind, id, revision, tasks, grants, items: items.map(viewOfItem) },
    next_cursor: next === undefined ? null : cursorOf(next),
  };
}

function viewOfItem({ task, shown, held, heldTotal, could }: ReachedItem): ReachBody['items'][number] {
  return {
    task_id: wireId('task', task.id),
    workload: workloadId(task.workload),
    ...(shown
      ? {
          task: {
            ...{ state: task.state, purpose: task.purpose, phase: task.phase, not_after: task.notAfter.toISOString() },
            parent_id: task.parentId === null ? null : wireId('task', task.parentId),
          },
        }
      : {}),
    holds: {
      total: heldTotal,
      items: held.map(({ id, entitlement, target, state, until, guarantee, usedSince }) => ({
        ...{ grant_id: wireId('grt', id), entitlement, target, state, until: until.toISOString(), guarantee },
        used_since: usedSince?.toISOString() ?? null,
      })),
    },
    could: could.map(({ entitlement, answer, because, reasons, policies, obligations, ttlSeconds }) => ({
      ...{ entitlement, answer, because, reasons: [...reasons], policies: [...policies] },
      ...{ obligations: [...obligations], ttl_seconds: ttlSeconds },
    })),
  };
}
