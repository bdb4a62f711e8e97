import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { z } from 'zod';
import type { Secret } from '../../domain/secret.ts';
import { portTaken, systemCode } from './dev-error.ts';
import { keepSecretFile, openPrivateFolder, randomSecret } from './dev-folder.ts';
import { type IssuerKey, type IssuerName, issuerNames, keepIssuerKey } from './issuer-keys.ts';
import {
  createSigners,
  operatorTokenSchema,
  type SignedToken,
  type Signers,
  taskEventSchema,
  taskRequestSchema,
  workloadTokenSchema,
} from './issuer-tokens.ts';

const BODY_LIMIT_BYTES = 16_384;

const DEFAULT_ISSUER_PORT = 7421;

export interface DevIssuer extends Signers {
  /** `iss` of each of the three: `http://127.0.0.1:7421/workloads`. */
  readonly issuers: Readonly<Record<IssuerName, string>>;
  /** Holds the bearer secret of `POST /token`; mode 0600. */
  readonly secretFile: string;
  /** @throws DevError `port_taken` */
  start(): Promise<void>;
  stop(): Promise<void>;
}

export interface DevIssuerOptions {
  /** The dev folder (`.mayfly`): keys and secret are kept below it. */
  readonly dir: string;
  /** On 127.0.0.1. It is part of the issuers' names. */
  readonly port?: number;
  readonly now?: () => Date;
  readonly log?: (line: string) => void;
}

/**
 * A small OIDC-shaped issuer for a person's laptop: one for task requests, one for workload tokens, one for operator
 * tokens, each with discovery and a JWKS. `POST /token` signs whatever it is asked for by who can read the secret
 * file. The signers work without the listener.
 */
export async function createDevIssuer(options: DevIssuerOptions): Promise<DevIssuer> {
  const { port = DEFAULT_ISSUER_PORT, now = () => new Date(), log = () => undefined } = options;
  const dir = await openPrivateFolder(options.dir);
  const secretFile = join(dir, 'issuer-secret');
  const secret = await keepSecretFile(secretFile, randomSecret);
  const keys = await eachIssuer((name) => keepIssuerKey(dir, name));
  const issuers = await eachIssuer(async (name) => `http://127.0.0.1:${port}/${name}`);
  const signers = createSigners({ keys, issuers, now });
  const server = createServer((request, response) => {
    answer(request, { port, secret, keys, issuers, signers }).then(
      (reply) => send(response, reply),
      (error: unknown) => {
        if (error instanceof Refusal) return send(response, error);
        log(`The dev issuer failed: ${String(error)}`);
        return send(response, new Refusal(500, 'internal', 'Something went wrong here.'));
      },
    );
  });
  // Nobody honest is slow on loopback.
  server.requestTimeout = 10_000;
  server.headersTimeout = 5_000;
  return { ...signers, issuers, secretFile, start: () => listen(server, port), stop: () => close(server) };
}

interface Context {
  readonly port: number;
  readonly secret: Secret<string>;
  readonly keys: Readonly<Record<IssuerName, IssuerKey>>;
  readonly issuers: Readonly<Record<IssuerName, string>>;
  readonly signers: Signers;
}

interface Reply {
  readonly status: number;
  readonly body: unknown;
}

class Refusal extends Error implements Reply {
  readonly status: number;
  readonly body: unknown;

  constructor(status: number, code: string, detail: string, errors?: readonly unknown[]) {
    super(detail);
    this.status = status;
    this.body = { type: `/problems/${code}`, title: detail, status, code, errors };
  }
}

const tokenBody = z.discriminatedUnion('kind', [
  workloadTokenSchema.extend({ kind: z.literal('workload') }),
  operatorTokenSchema.extend({ kind: z.literal('operator') }),
  taskRequestSchema.extend({ kind: z.literal('task-request') }),
  taskEventSchema.extend({ kind: z.literal('task-event') }),
]);

async function answer(request: IncomingMessage, context: Context): Promise<Reply> {
  refuseStrangers(request, context.port);
  const [pathname = ''] = (request.url ?? '').split('?');
  if (pathname === '/token') return giveToken(request, context);
  const name = issuerNames.find((one) => pathname.startsWith(`/${one}/`));
  const document = name === undefined ? undefined : published(name, pathname.slice(name.length + 1), context);
  if (document === undefined) throw new Refusal(404, 'not_found', 'There is nothing here.');
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    throw new Refusal(405, 'method_not_allowed', 'Only GET and HEAD are known here.');
  }
  return { status: 200, body: document };
}

function published(name: IssuerName, path: string, { keys, issuers }: Context): unknown {
  const issuer = issuers[name];
  switch (path) {
    case '/.well-known/openid-configuration':
      return {
        issuer,
        jwks_uri: `${issuer}/jwks.json`,
        id_token_signing_alg_values_supported: ['ES256'],
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
      };
    case '/jwks.json':
      return { keys: [keys[name].publicJwk] };
    default:
      return undefined;
  }
}

async function giveToken(request: IncomingMessage, context: Context): Promise<Reply> {
  if (request.method !== 'POST') throw new Refusal(405, 'method_not_allowed', 'Only POST is known here.');
  if (!holdsSecret(request.headers.authorization, context.secret)) {
    throw new Refusal(401, 'dev_secret_wrong', 'Send Authorization: Bearer and the text of .mayfly/issuer-secret.');
  }
  const type = request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new Refusal(415, 'unsupported_media_type', 'Send Content-Type: application/json.');
  }
  const wanted = tokenBody.safeParse(parseJson(await readBody(request)));
  if (!wanted.success) {
    const errors = wanted.error.issues.map(({ path, message }) => ({ path: ['$', ...path].join('.'), message }));
    throw new Refusal(400, 'invalid_request', 'The request does not fit its schema.', errors);
  }
  const { issuer, signed } = await signWanted(wanted.data, context);
  return { status: 200, body: { issuer, ...signed } };
}

async function signWanted(
  wanted: z.infer<typeof tokenBody>,
  { signers, issuers }: Context,
): Promise<{ issuer: string; signed: SignedToken }> {
  if (wanted.kind === 'workload') {
    const { kind: _, ...input } = wanted;
    return { issuer: issuers.workloads, signed: await signers.signWorkloadToken(input) };
  }
  if (wanted.kind === 'operator') {
    const { kind: _, ...input } = wanted;
    return { issuer: issuers.operators, signed: await signers.signOperatorToken(input) };
  }
  if (wanted.kind === 'task-event') {
    const { kind: _, ...input } = wanted;
    return { issuer: issuers.orchestrator, signed: await signers.signTaskEvent(input) };
  }
  const { kind: _, ...input } = wanted;
  return { issuer: issuers.orchestrator, signed: await signers.signTaskRequest(input) };
}

/** A web page must not reach this through a name that it made point here (Host), nor from another site (Origin). */
function refuseStrangers(request: IncomingMessage, port: number): void {
  const own = [`127.0.0.1:${port}`, `localhost:${port}`];
  if (!own.includes(request.headers.host ?? '')) {
    throw new Refusal(400, 'host_refused', `Use http://127.0.0.1:${port}.`);
  }
  const { origin } = request.headers;
  const site = request.headers['sec-fetch-site'];
  const foreignOrigin = origin !== undefined && !own.some((host) => origin === `http://${host}`);
  if (foreignOrigin || (site !== undefined && site !== 'same-origin' && site !== 'none')) {
    throw new Refusal(403, 'cross_origin_refused', 'Pages of other origins may not ask here.');
  }
}

function holdsSecret(authorization: string | undefined, secret: Secret<string>): boolean {
  // Digests have one length: the comparison tells nothing about how much of a guess was right.
  const digest = (value: string): Buffer => createHash('sha256').update(value).digest();
  return timingSafeEqual(digest(authorization ?? ''), digest(`Bearer ${secret.reveal()}`));
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  // Not destroyed when too large: the refusal must still go out on the same socket.
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError('a request body is read as bytes');
    size += chunk.length;
    if (size > BODY_LIMIT_BYTES) throw new Refusal(413, 'body_too_large', 'Send at most 16 KiB.');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Refusal(400, 'malformed_json', 'The body is not valid JSON.');
  }
}

function send(response: ServerResponse, { status, body }: Reply): void {
  response.writeHead(status, {
    'content-type': status >= 400 ? 'application/problem+json' : 'application/json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
  });
  response.end(JSON.stringify(body));
}

async function listen(server: Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => {
      reject(
        systemCode(error) === 'EADDRINUSE'
          ? portTaken('The dev issuer', port, { setting: '--issuer-port' }, error)
          : error,
      );
    });
    server.listen({ port, host: '127.0.0.1' }, resolve);
  });
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  await new Promise((resolve) => {
    server.close(resolve);
    server.closeAllConnections();
  });
}

async function eachIssuer<T>(make: (name: IssuerName) => Promise<T>): Promise<Readonly<Record<IssuerName, T>>> {
  const [orchestrator, workloads, operators] = [
    await make('orchestrator'),
    await make('workloads'),
    await make('operators'),
  ];
  return { orchestrator, workloads, operators };
}
