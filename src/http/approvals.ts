import type { ShownApproval } from '../broker/approvals.ts';
import { missing } from '../broker/decide-approval.ts';
import { type ApprovalId, parseWireId, wireId } from '../domain/ids.ts';
import { workloadId } from '../domain/task.ts';
import {
  approvalPath,
  approvalsPageBody,
  approvalsQuery,
  type ApprovalView,
  approvalView,
  decideApprovalBody,
} from './approval-bodies.ts';
import { afterOf, cursorOf, timed } from './queue-views.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';

const listApprovals = route({
  method: 'get',
  path: '/v1/approvals',
  name: 'listApprovals',
  tag: 'operating',
  summary: 'List approvals',
  description: 'The latest first, those about targets in scope. Role: viewer.',
  query: approvalsQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of approvals.', schema: approvalsPageBody } },
  refusals: ['operator_only'],
  handle: async (call) => {
    const { state, task, limit, cursor } = call.query;
    const filter = {
      ...(state === undefined ? {} : { state }),
      ...(task === undefined ? {} : { taskId: parseWireId('task', task) }),
    };
    const before = cursor === undefined ? null : afterOf<ApprovalId>(cursor);
    const { items, next } = await call.useCases.listApprovals(call.broker, call.caller, filter, before, limit);
    const body = { items: items.map(viewOfApproval), next_cursor: next === undefined ? null : cursorOf(next) };
    return { status: 200, body };
  },
});

const readApproval = route({
  method: 'get',
  path: '/v1/approvals/{id}',
  name: 'readApproval',
  tag: 'operating',
  summary: 'Read what is to be approved',
  description: 'Who asks on whose behalf, for what exactly, and until when. Role: viewer, with the target in scope.',
  params: approvalPath,
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The approval.', schema: approvalView } },
  refusals: ['operator_only', 'not_found'],
  handle: async (call) => {
    const shown = await call.useCases.readApproval(call.broker, call.caller, call.approvalId());
    return { status: 200, body: viewOfApproval(shown) };
  },
});

const decideApproval = route({
  method: 'post',
  path: '/v1/approvals/{id}',
  name: 'decideApproval',
  tag: 'operating',
  summary: 'Approve, deny or withdraw',
  description:
    'Of several decisions at once those count that something is still needed of, and the others are refused. To approve: role approver with the target in scope, in one of the groups, and neither who asked nor on whose behalf, of this task and of all above it. To deny: the same, but also for who asked. To withdraw what was approved: role approver with the target in scope; what was not collected is denied, and what lives of it ends (`ended_by: drift`).',
  params: approvalPath,
  query: noQuery,
  headers: noHeaders,
  body: { schema: decideApprovalBody, take: 'always' },
  // It may take access back: two of its three words do.
  ends: true,
  answers: { 200: { says: 'The approval as it is now.', schema: approvalView } },
  refusals: [
    'operator_only',
    'not_found',
    'approver_not_in_group',
    'approver_is_party',
    'approver_unmapped',
    'approval_pending',
    'approval_over',
    'task_ended',
    'task_suspended',
  ],
  handle: async (call) => {
    const { decision, reason } = call.body;
    const { broker, caller, context, useCases } = call;
    const shown =
      decision === 'withdraw'
        ? await useCases.withdrawApproval(broker, caller, call.approvalId(), reason, context)
        : await useCases.decideApproval(broker, caller, call.approvalId(), decision, reason, context);
    return { status: 200, body: viewOfApproval(shown) };
  },
});

export const approvalRoutes: readonly Route[] = [listApprovals, readApproval, decideApproval];

/** Where a target is reached, and how, is no part of what is decided. */
function viewOfApproval({ approval, task, grant, decision, above }: ShownApproval): ApprovalView {
  const { asked, state, because, endedAt } = approval;
  const { connection: _, ...target } = asked.target;
  return {
    id: wireId('apr', approval.id),
    state,
    ...(because === null ? {} : { because }),
    groups: [...approval.groups],
    still_needed: state === 'pending' ? [...missing(approval)] : [],
    words: approval.words.map(({ groups, ...word }) => ({ ...word, as: [...groups] })),
    requested_at: approval.requestedAt.toISOString(),
    expires_at: approval.expiresAt.toISOString(),
    ...timed('ended_at', endedAt),
    grant_id: wireId('grt', grant.id),
    grant_state: grant.state,
    task_id: wireId('task', task.id),
    decision_id: wireId('dec', approval.decisionId),
    policies: [...decision.policies],
    revision: decision.revision,
    workload: workloadId(task.workload),
    subject: task.subject,
    issuer: task.issuer,
    purpose: task.purpose,
    phase: task.phase,
    task_not_after: task.notAfter.toISOString(),
    above: above.map(({ taskId, workload, subject, issuer }) => ({
      ...{ task_id: wireId('task', taskId), workload: workloadId(workload), subject, issuer },
    })),
    target: grant.target,
    entitlement: grant.entitlement,
    params: { ...asked.params },
    ttl_seconds: asked.ttl_seconds,
    per_call: asked.per_call,
    justification: asked.justification,
    sealed_to: asked.delivery,
    guarantee: { revocation: grant.guarantee.revocation, says: grant.guarantee.says },
    definition: { entitlement: { ...asked.entitlement }, target },
    digest: approval.digest.toString('hex'),
  };
}
