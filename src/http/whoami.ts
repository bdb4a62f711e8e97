import type { RoleBinding } from '../catalog/types.ts';
import { problemKind } from '../domain/problems.ts';
import { workloadId } from '../domain/task.ts';
import type { Caller, TokenExplanation } from '../identity/types.ts';
import { noHeaders, noQuery } from './requests.ts';
import { noBody, type Route, route } from './route.ts';
import {
  type ExplainedTokenBody,
  explainedTokenBody,
  explainTokenBody,
  type WhoAmIBody,
  whoAmIBody,
} from './whoami-bodies.ts';

const whoAmI = route({
  method: 'get',
  path: '/v1/whoami',
  name: 'whoAmI',
  tag: 'broker',
  summary: 'As whom the broker believes the caller',
  description: 'A caller that is not believed is told by the refusal which check failed, and nothing of what exists.',
  query: noQuery,
  headers: noHeaders,
  body: noBody,
  answers: { 200: { says: 'The caller.', schema: whoAmIBody } },
  refusals: [],
  handle: async (call) => ({ status: 200, body: viewOfCaller(call.caller) }),
});

const explainToken = route({
  method: 'post',
  path: '/v1/whoami',
  name: 'explainToken',
  tag: 'operating',
  summary: 'Explain why a token is believed or not',
  description:
    'In full: every check, with what stands in the token and what the catalog wants. Role: operator, of any scope.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: explainTokenBody, take: 'always' },
  answers: { 200: { says: 'What was found.', schema: explainedTokenBody } },
  refusals: ['operator_only'],
  handle: async (call) => ({
    status: 200,
    body: viewOfExplanation(await call.useCases.explainToken(call.broker, call.caller, call.body.token)),
  }),
});

export const whoAmIRoutes: readonly Route[] = [whoAmI, explainToken];

function viewOfCaller(caller: Caller): WhoAmIBody {
  const expires = { token_expires_at: caller.expiresAt.toISOString() };
  if (caller.kind === 'workload')
    return {
      kind: 'workload',
      workload: workloadId(caller.workload),
      instance: caller.instance,
      key_thumbprint: caller.keyThumbprint,
      ...expires,
    };
  return {
    kind: 'operator',
    operator: caller.operator,
    roles: caller.roles.flatMap(viewOfBinding),
    ...expires,
  };
}

function viewOfBinding(binding: RoleBinding): Extract<WhoAmIBody, { kind: 'operator' }>['roles'] {
  if (typeof binding === 'string') return [{ role: binding, scope: null }];
  const { owner, environment, labels } = binding.scope;
  const scope = { owner, environment, ...(labels === undefined ? {} : { labels: { ...labels } }) };
  return binding.roles.map((role) => ({ role, scope }));
}

function viewOfExplanation(explanation: TokenExplanation): ExplainedTokenBody {
  const { caller, refusal, source, boundTo, taskIssuers, checks } = explanation;
  return {
    believed: refusal === null,
    says: saysOf(explanation),
    caller: caller === null ? null : viewOfCaller(caller),
    refusal:
      refusal === null
        ? null
        : {
            code: refusal.code,
            title: problemKind(refusal.code).title,
            ...(refusal.detail === undefined ? {} : { detail: refusal.detail }),
            next: problemKind(refusal.code).next,
            errors: [...refusal.errors],
          },
    source,
    bound_to_key: boundTo.key,
    bound_to_certificate: boundTo.certificate,
    task_issuers: [...taskIssuers],
    checks: checks.map((check) => ({ ...check })),
  };
}

function saysOf({ refusal, boundTo, caller, taskIssuers }: TokenExplanation): string {
  if (refusal !== null) return `It is refused: ${problemKind(refusal.code).title.toLowerCase()}.`;
  if (boundTo.key !== null) return 'It is believed when it comes as DPoP, with a proof by the key that it is bound to.';
  if (boundTo.certificate !== null)
    return 'It is believed over a connection with the client certificate that it is bound to.';
  if (caller?.kind === 'workload' && taskIssuers.length === 0)
    return 'It is believed, but no task issuer may name this workload: it can open no task.';
  return 'It is believed.';
}
