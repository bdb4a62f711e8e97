import type { ExplainedDecision } from '../broker/explain-decision.ts';
import { type DecisionId, parseWireId, wireId } from '../domain/ids.ts';
import {
  decisionPath,
  decisionsPageBody,
  decisionsQuery,
  type DecisionView,
  explainedBody,
} from './decision-bodies.ts';
import type { Approval } from '../store/approvals.ts';
import { afterOf, cursorOf } from './queue-views.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';

const listDecisions = route({
  method: 'get',
  path: '/v1/decisions',
  name: 'listDecisions',
  tag: 'operating',
  summary: 'List decisions, each decided again',
  description: 'The latest first, those about targets in scope. Role: viewer.',
  query: decisionsQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'A page of decisions.', schema: decisionsPageBody } },
  refusals: ['operator_only', 'policies_busy'],
  handle: async (call) => {
    const { task, resource, decision, limit, cursor } = call.query;
    const filter = {
      ...(task === undefined ? {} : { taskId: parseWireId('task', task) }),
      ...(resource === undefined ? {} : { resource }),
      ...(decision === undefined ? {} : { permitted: decision === 'permit' }),
    };
    const before = cursor === undefined ? null : afterOf<DecisionId>(cursor);
    const { items, next } = await call.useCases.replayDecisions(call.broker, call.caller, filter, before, limit);
    const body = { items: items.map(viewOfDecision), next_cursor: next === undefined ? null : cursorOf(next) };
    return { status: 200, body };
  },
});

const explainDecision = route({
  method: 'get',
  path: '/v1/decisions/{id}',
  name: 'explainDecision',
  tag: 'operating',
  summary: 'Explain a decision',
  description:
    'What policy knew, the policies that determined it as they stood then, their revision and who applied it; and the same decided again. Role: viewer, with the target in scope.',
  params: decisionPath,
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The decision.', schema: explainedBody } },
  refusals: ['operator_only', 'not_found', 'policies_busy'],
  handle: async (call) => {
    const explained = await call.useCases.explainDecision(call.broker, call.caller, call.decisionId());
    const { decision, policies, approval } = explained;
    const body = {
      ...viewOfDecision(explained),
      catalog: {
        ...{ digest: decision.digest, applied_by: decision.appliedBy },
        applied_at: decision.appliedAt.toISOString(),
      },
      determined_by: policies.map(({ id, file, line, text }) => ({ id, file, line, text })),
      ...(approval === undefined ? {} : { approval: approvalOf(approval) }),
      inputs: { ...decision.inputs },
    };
    return { status: 200, body };
  },
});

export const decisionRoutes: readonly Route[] = [listDecisions, explainDecision];

function approvalOf({ id, state, groups, words, requestedAt, because }: Approval) {
  return {
    ...{ id: wireId('apr', id), state, groups: [...groups], requested_at: requestedAt.toISOString() },
    ...(because === null ? {} : { because }),
    words: words.map(({ groups: as, ...said }) => ({ ...said, as: [...as] })),
  };
}

function viewOfDecision({ decision, replay }: Omit<ExplainedDecision, 'policies' | 'approval'>): DecisionView {
  const { id, taskId, grantId, action, resource, permitted, refusal, limit, maxTtlSeconds } = decision;
  return {
    id: wireId('dec', id),
    ...(taskId === null ? {} : { task_id: wireId('task', taskId) }),
    ...(grantId === null ? {} : { grant_id: wireId('grt', grantId) }),
    ...{ action, resource, decision: permitted ? 'permit' : 'deny' },
    ...(refusal === null ? {} : { refusal }),
    ...(limit === null ? {} : { limit }),
    ...{ policies: [...decision.policies], errors: [...decision.errors] },
    ...(maxTtlSeconds === null ? {} : { max_ttl_seconds: maxTtlSeconds }),
    ...{ revision: decision.revision, decided_at: decision.at.toISOString(), replay },
  };
}
