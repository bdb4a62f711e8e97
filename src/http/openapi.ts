import { OpenAPIRegistry, OpenApiGeneratorV31 } from '@asteasolutions/zod-to-openapi';
import { z } from 'zod';
import { type ProblemCode, problemKind } from '../domain/problems.ts';
import { problemBody } from './answers.ts';
import type { Page } from './page.ts';
import { SESSION_COOKIE } from './cookies.ts';
import { noHeaders } from './requests.ts';
import { type AnswerShape, type Operation, noBody, type Route } from './route.ts';
import { writeText } from './write.ts';

type Responses = Parameters<OpenAPIRegistry['registerPath']>[0]['responses'];

const proofHeader = z.object({
  DPoP: z.string().optional().meta({
    description:
      'One proof of possession, made for this very call (RFC 9449 §4.2), with `ath`. Of use once, and within a minute.',
  }),
});

/** Refusals that any operation can meet. */
const always: readonly ProblemCode[] = ['host_refused', 'peer_refused', 'internal'];
/** Refusals that any operation can meet which wants to know its caller. */
const withCaller: readonly ProblemCode[] = [
  'invalid_request',
  'workload_token_missing',
  'workload_token_invalid',
  'workload_token_expired',
  'workload_token_malformed',
  'workload_token_type_wrong',
  'workload_token_algorithm_refused',
  'workload_token_header_refused',
  'workload_token_issuer_unknown',
  'workload_token_key_unknown',
  'workload_token_signature_invalid',
  'workload_token_audience_wrong',
  'workload_token_not_yet_valid',
  'key_binding_unsupported',
  'workload_token_bound',
  'workload_token_unbound',
  'certificate_issuer_unknown',
  'certificate_refused',
  'certificate_untrusted',
  'certificate_expired',
  'certificate_not_yet_valid',
  'certificate_missing',
  'certificate_wrong',
  'proof_missing',
  'proof_malformed',
  'proof_type_wrong',
  'proof_algorithm_refused',
  'proof_header_refused',
  'proof_key_refused',
  'proof_signature_invalid',
  'proof_claims_invalid',
  'proof_method_wrong',
  'proof_address_wrong',
  'proof_time_wrong',
  'proof_token_wrong',
  'proof_key_wrong',
  'proof_used',
  'session_ended',
  'cross_site_refused',
  'use_dpop_nonce',
  'keys_unavailable',
  'store_unavailable',
  'not_ready',
];
const withBody: readonly ProblemCode[] = [
  'malformed_json',
  'duplicate_member',
  'body_too_large',
  'unsupported_media_type',
];

/** The OpenAPI 3.1 document of these operations, from the schemas that validate and the schemas that answers are held against. */
function describe(routes: readonly Route[], pages: readonly Page[], publicUrl: string, version: string) {
  const registry = new OpenAPIRegistry();
  registry.registerComponent('securitySchemes', 'token', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
    description:
      'The workload’s own token, or an operator’s. For a task that names a key, a proof by it stands beside, in the header DPoP.',
  });
  registry.registerComponent('securitySchemes', 'bound_token', {
    type: 'http',
    scheme: 'DPoP',
    bearerFormat: 'JWT',
    description:
      'A token that is itself bound to a key by `cnf.jkt` (RFC 9449), with a proof by that key in the header DPoP.',
  });
  registry.registerComponent('securitySchemes', 'session', {
    type: 'apiKey',
    in: 'cookie',
    name: SESSION_COOKIE,
    description:
      'Of an operator who signed in at /login. What changes something must come from a page of this broker (header Origin).',
  });
  registry.registerComponent('securitySchemes', 'certificate', {
    type: 'mutualTLS',
    description: 'An X.509-SVID of the workload, where the broker itself speaks TLS. Then no token is needed.',
  });
  for (const route of routes) add(registry, route, true);
  for (const page of pages) add(registry, page, false);
  return new OpenApiGeneratorV31(registry.definitions).generateDocument({
    openapi: '3.1.0',
    info: {
      title: 'Mayfly',
      version,
      description:
        'Ephemeral credentials for autonomous agents. One verified task, one credential, taken back and proven gone.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: publicUrl }],
    tags: [
      { name: 'tasks', description: 'Bounded pieces of agent work.' },
      { name: 'grants', description: 'Entitlements issued to tasks.' },
      { name: 'access', description: 'Decisions for a single call (AuthZEN 1.0).' },
      { name: 'operating', description: 'The queue of revocations and the targets. For operators.' },
      { name: 'broker', description: 'The broker itself. Needs no caller.' },
    ],
  });
}

/** Answers the document, made when it is first asked for. */
export function documentPage(
  routes: readonly Route[],
  pages: readonly Page[],
  publicUrl: string,
  version: string,
): Page {
  let text: string | undefined;
  const page: Page = {
    method: 'get',
    path: '/openapi.json',
    name: 'readOpenApi',
    tag: 'broker',
    summary: 'This document',
    body: noBody,
    answers: { 200: { says: 'OpenAPI 3.1.', types: ['application/json'] } },
    refusals: [],
    show: ({ response }) => {
      text ??= JSON.stringify(describe(routes, [...pages, page], publicUrl, version));
      writeText(response, 200, 'application/json', text);
    },
  };
  return page;
}

function add(registry: OpenAPIRegistry, operation: Operation, needsCaller: boolean): void {
  const { method, path, name, tag, summary, description, params, query, headers, body } = operation;
  registry.registerPath({
    method,
    path,
    operationId: name,
    tags: [tag],
    summary,
    ...(description === undefined ? {} : { description }),
    security: needsCaller ? [{ token: [] }, { bound_token: [] }, { certificate: [] }, { session: [] }] : [],
    request: {
      ...(params === undefined ? {} : { params }),
      ...(query === undefined ? {} : { query }),
      ...(needsCaller ? { headers: (headers ?? noHeaders).extend(proofHeader.shape) } : {}),
      ...(body.take === 'never'
        ? {}
        : { body: { required: body.take === 'always', content: { 'application/json': { schema: body.schema } } } }),
    },
    responses: { ...answersOf(operation, needsCaller), ...problemsOf(operation, needsCaller) },
  });
}

const nonceHeader = {
  'DPoP-Nonce': 'What the next proof shall carry as `nonce`, where proofs need one (RFC 9449 §9).',
};

function answersOf({ answers }: Operation, needsCaller: boolean): Responses {
  return Object.fromEntries(
    Object.entries(answers).map(([status, shape]) => {
      const headers = headersOf({ ...(needsCaller ? nonceHeader : {}), ...shape.headers });
      return [status, { description: shape.says, headers, content: contentOf(shape) }];
    }),
  );
}

function contentOf({ schema, types = [] }: AnswerShape): Record<string, { schema: z.ZodType }> {
  const others = Object.fromEntries(
    types.map((type) => [
      type,
      { schema: type === 'application/json' ? z.record(z.string(), z.unknown()) : z.string() },
    ]),
  );
  return schema === undefined ? others : { 'application/json': { schema }, ...others };
}

function headersOf(headers: Readonly<Record<string, string>>): z.ZodObject {
  const id = z.string().meta({ description: 'The request’s id: the caller’s own, if it was fit.' });
  const others = Object.entries(headers).map(
    ([name, says]) => [name, z.string().optional().meta({ description: says })] as const,
  );
  return z.object({ 'X-Request-Id': id, ...Object.fromEntries(others) });
}

/** One response a status, naming its codes. */
function problemsOf(operation: Operation, needsCaller: boolean): Responses {
  const codes = new Set([
    ...operation.refusals,
    ...(needsCaller ? withCaller : []),
    ...(needsCaller && !operation.ends ? (['too_many_calls'] as const) : []),
    ...(operation.body.take === 'never' ? [] : withBody),
    ...always,
  ]);
  const byStatus = new Map<number, ProblemCode[]>();
  for (const code of codes) {
    const { status } = problemKind(code);
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  const common = needsCaller ? nonceHeader : {};
  return Object.fromEntries([...byStatus].map(([status, named]) => [status, problemResponse(status, named, common)]));
}

function problemResponse(status: number, codes: readonly ProblemCode[], common: Readonly<Record<string, string>>) {
  const headers: Record<string, string> = { ...common };
  if (status === 401) headers['WWW-Authenticate'] = 'RFC 6750.';
  if (status === 429 || status === 503 || codes.includes('key_in_flight')) headers['Retry-After'] = 'Seconds to wait.';
  return {
    description: codes.map((code) => `\`${code}\``).join(', '),
    headers: headersOf(headers),
    content: { 'application/problem+json': { schema: problemBody } },
  };
}
