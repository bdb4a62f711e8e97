import type { z } from 'zod';
import type { Evaluated } from '../broker/evaluate.ts';
import type { AskedEvaluation } from '../broker/evaluated-subject.ts';
import { MayflyError } from '../domain/errors.ts';
import { wireId } from '../domain/ids.ts';
import {
  evaluatedAllBody,
  type EvaluatedBody,
  evaluatedBody,
  type EvaluationBody,
  evaluationBody,
  evaluationsBody,
  MOST_EVALUATIONS,
} from './access-bodies.ts';
import type { Call } from './call.ts';
import { parseBody } from './parse.ts';
import { noHeaders, noQuery } from './requests.ts';
import { type Route, route } from './route.ts';
import type { Answer } from './write.ts';

const evaluate = route({
  method: 'post',
  path: '/access/v1/evaluation',
  name: 'evaluate',
  tag: 'access',
  summary: 'Ask whether a task may do this to that now',
  description:
    'AuthZEN 1.0. Policy decides at this moment; a denial is 200 with `decision: false`. Members that are not known here are ignored.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: evaluationBody, take: 'always' },
  answers: { 200: { says: 'The decision.', schema: evaluatedBody } },
  refusals: [],
  handle: async (call) => await answerOne(call, call.body),
});

const evaluateAll = route({
  method: 'post',
  path: '/access/v1/evaluations',
  name: 'evaluateAll',
  tag: 'access',
  summary: 'Ask several at once',
  description:
    'AuthZEN 1.0. One after another, in their order; each is a decision and a use event of its own. What is wrong with one is told in its place, as a denial.',
  query: noQuery,
  headers: noHeaders,
  body: { schema: evaluationsBody, take: 'always' },
  answers: { 200: { says: 'The decisions.', schema: evaluatedAllBody } },
  refusals: ['too_many_evaluations'],
  handle: async (call) => {
    const { options, evaluations = [], ...defaults } = call.body;
    if (evaluations.length === 0) return await answerOne(call, parseBody(evaluationBody, defaults));
    if (evaluations.length > MOST_EVALUATIONS) throw new MayflyError('too_many_evaluations');
    const agent = call.agent();
    await call.exchange.limits.countEvaluations(agent, evaluations.length);
    const stopAt = stops[options?.evaluations_semantic ?? 'execute_all'];
    const answers: EvaluatedBody[] = [];
    for (const item of evaluations) {
      const asked = evaluationBody.safeParse(isRecord(item) ? { ...defaults, ...item } : item);
      const answer = asked.success
        ? viewOfEvaluated(await call.useCases.evaluate(call.broker, agent, askedOf(asked.data), call.context))
        : malformed(asked.error);
      answers.push(answer);
      if (answer.decision === stopAt) break;
    }
    return { status: 200, body: { evaluations: answers } };
  },
});

/** The decision at which it stops. */
const stops = { execute_all: null, deny_on_first_deny: false, permit_on_first_permit: true } as const;

export const accessRoutes: readonly Route[] = [evaluate, evaluateAll];

async function answerOne(call: Call<unknown, unknown, unknown>, body: EvaluationBody): Promise<Answer> {
  const agent = call.agent();
  await call.exchange.limits.countEvaluations(agent, 1);
  const evaluated = await call.useCases.evaluate(call.broker, agent, askedOf(body), call.context);
  return { status: 200, body: viewOfEvaluated(evaluated) };
}

function malformed({ issues }: z.ZodError): EvaluatedBody {
  const [first] = issues;
  const message = `${first?.path.join('.') ?? ''} ${first?.message ?? 'does not fit'}`.trim();
  return { decision: false, context: { error: { status: 400, message } } };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function askedOf({ subject, action, resource, context = {} }: EvaluationBody): AskedEvaluation {
  return {
    subject: { ...subject, properties: subject.properties ?? {} },
    action: { name: action.name, properties: action.properties ?? {} },
    resource: { ...resource, properties: resource.properties ?? {} },
    context,
  };
}

function viewOfEvaluated(evaluated: Evaluated): EvaluatedBody {
  const { permitted, decisionId, revision, validForSeconds, singleUse, code, reasons } = evaluated;
  return {
    decision: permitted,
    context: {
      ...(decisionId === null ? {} : { evaluation_id: wireId('dec', decisionId) }),
      catalog_revision: revision,
      valid_for_seconds: validForSeconds,
      ...(singleUse ? { use_limit: 1 as const } : {}),
      ...(code === null ? {} : { code, reasons: [...reasons] }),
    },
  };
}
