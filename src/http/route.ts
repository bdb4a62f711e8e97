import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { MayflyError } from '../domain/errors.ts';
import type { ProblemCode } from '../domain/problems.ts';
import type { Believed, Presented } from '../identity/types.ts';
import { readJson } from './body.ts';
import { Call } from './call.ts';
import { readCookie, requireOwnOrigin, SESSION_COOKIE } from './cookies.ts';
import { certificatesOf } from './client-certificates.ts';
import type { Exchange } from './exchange.ts';
import { notesOf } from './notes.ts';
import { oneHeader, parseBody, parseHeaders, parseQuery } from './parse.ts';
import type { Answer } from './write.ts';

/** What an answer looks like, for the OpenAPI document. */
export interface AnswerShape {
  readonly says: string;
  /** JSON of this shape; or media types without one. */
  readonly schema?: z.ZodType;
  readonly types?: readonly string[];
  /** Name → what it says. */
  readonly headers?: Readonly<Record<string, string>>;
}

export interface BodyRule<B extends z.ZodType = z.ZodType> {
  readonly schema: B;
  /** `if-sent`: nothing stands for `{}`. `never`: what is sent is not looked at. */
  readonly take: 'always' | 'if-sent' | 'never';
  /** Larger than other bodies may be: it is read for operators only. */
  readonly mostBytes?: number;
}

export const noBody = { schema: z.undefined(), take: 'never' } as const;

/** One method on one path: what the OpenAPI document tells of it. */
export interface Operation {
  readonly method: 'get' | 'post' | 'delete';
  /** As in OpenAPI: `/v1/tasks/{id}`. */
  readonly path: string;
  /** `operationId`. */
  readonly name: string;
  readonly tag: 'tasks' | 'grants' | 'access' | 'operating' | 'broker';
  readonly summary: string;
  readonly description?: string;
  readonly params?: z.ZodObject;
  readonly query?: z.ZodObject;
  readonly headers?: z.ZodObject;
  readonly body: BodyRule;
  /** It takes access back: no limit of asking ever refuses it. */
  readonly ends?: true;
  readonly answers: Readonly<Record<number, AnswerShape>>;
  /** Codes of its own, beside those of every operation that needs a caller. */
  readonly refusals: readonly ProblemCode[];
}

/** An operation that only a believed caller may ask for. */
export interface Route extends Operation {
  run(exchange: Exchange): Promise<Answer>;
}

interface Definition<B extends z.ZodType, Q extends z.ZodObject, H extends z.ZodObject>
  extends Omit<Operation, 'body' | 'query' | 'headers'> {
  readonly query: Q;
  readonly headers: H;
  readonly body: BodyRule<B>;
  readonly handle: (call: Call<z.output<B>, z.output<Q>, z.output<H>>) => Promise<Answer>;
}

/** A route whose handler gets what its schemas made of the request: parse, authenticate, then the use case. */
export function route<B extends z.ZodType, Q extends z.ZodObject, H extends z.ZodObject>(
  definition: Definition<B, Q, H>,
): Route {
  const { handle, ...operation } = definition;
  return {
    ...operation,
    run: async (exchange) => {
      const { request, deps, useCases, limits } = exchange;
      if (!definition.ends) await limits.countAddress(notesOf(exchange.response).client);
      const query = parseQuery(definition.query, request);
      const headers = parseHeaders(definition.headers, request);
      const presented = presentedBy(request);
      // Whoever shows a token is judged by that alone.
      const session = presented.authorization === undefined ? readCookie(request, SESSION_COOKIE) : undefined;
      const believe = async (): Promise<Believed> =>
        session === undefined
          ? await useCases.authenticate(deps.broker, presented)
          : { caller: await useCases.callerOfSession(deps.broker, session), proof: null };
      if (definition.body.mostBytes !== undefined && (await believe()).caller.kind !== 'operator')
        throw new MayflyError('operator_only');
      const body = parseBody(definition.body.schema, await takeBody(definition.body, request));
      if (session !== undefined) requireOwnOrigin(request, deps.config.public_url);
      let counted: Promise<void> | undefined;
      let spent: Promise<void> | undefined;
      return await useCases.underOneRevision(deps.broker, async () => {
        const believed = await believe();
        if (!definition.ends) await (counted ??= limits.countCaller(believed.caller));
        // Begun again from its proofs it is still the one use of them.
        await (spent ??= spend(exchange, believed));
        return await handle(new Call(exchange, believed.caller, { body, query, headers }, definition.ends === true));
      });
    },
  };
}

/** The nonce goes with whatever is answered, a refusal of the one that came among it. */
async function spend({ deps, useCases, response }: Exchange, believed: Believed): Promise<void> {
  const nonce = await useCases.nextNonce(deps.broker, believed);
  if (nonce !== null) response.setHeader('DPoP-Nonce', nonce);
  await useCases.spendProof(deps.broker, believed);
}

function presentedBy(request: IncomingMessage): Presented {
  const [path = ''] = (request.url ?? '').split('?');
  return {
    authorization: oneHeader(request, 'authorization'),
    proofs: request.headersDistinct['dpop'] ?? [],
    certificates: certificatesOf(request),
    method: request.method ?? '',
    path,
  };
}

async function takeBody({ take, mostBytes }: BodyRule, request: IncomingMessage): Promise<unknown> {
  if (take === 'never') return undefined;
  const body = await readJson(request, mostBytes);
  if (body === undefined && take === 'always') throw new MayflyError('malformed_json', 'There is no body.');
  return body === undefined ? {} : body;
}
