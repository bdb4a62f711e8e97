import { type IncomingHttpHeaders, request as httpRequest } from 'node:http';
import { connect } from 'node:net';
import { noProposals } from '../../broker/testing/proposals.ts';
import { MayflyError } from '../../domain/errors.ts';
import { randomIds } from '../../domain/ids.ts';
import { Secret } from '../../domain/secret.ts';
import type { Caller, OperatorCaller } from '../../identity/types.ts';
import { createMetrics } from '../../metrics.ts';
import { coalescedIssuing } from '../../store/issuing.ts';
import { coalescedOwnedGrants } from '../../store/owned-grants.ts';
import { Database } from '../../store/database.ts';
import { coalescedProofs } from '../../store/proofs.ts';
import { createApp } from '../app.ts';
import { type HttpDeps, type UseCases, useCases } from '../deps.ts';
import { createLogger } from '../log.ts';
import { type RunningServer, startServer } from '../server.ts';
import { agent } from './samples.ts';

export interface TestAppOptions {
  /** What the routes call instead of the real use cases. What is not given is the real one, on a store that is down. */
  readonly useCases?: Partial<UseCases>;
  readonly config?: Partial<HttpDeps['config']>;
  readonly readiness?: HttpDeps['readiness'];
  readonly draining?: () => boolean;
  readonly wait?: HttpDeps['broker']['changes']['wait'];
}

export interface TestApp extends RunningServer {
  readonly app: ReturnType<typeof createApp>;
  /** Lines of the log, parsed. */
  readonly lines: () => Record<string, unknown>[];
  readonly logText: () => string;
  ask(method: string, path: string, options?: AskOptions): Promise<Reply>;
  /** Sends these bytes and answers all that comes back until the other side closes. */
  raw(text: string): Promise<string>;
  stop(): Promise<void>;
}

export interface AskOptions {
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** An object goes as JSON, a string or bytes as they are. */
  readonly body?: unknown;
  /** False: no token. Default: the agent's. */
  readonly token?: string | false;
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  readonly body: unknown;
}

const operator: OperatorCaller = {
  kind: 'operator',
  operator: 'ops:olga',
  roles: ['operator'],
  expiresAt: agent.expiresAt,
};
const callers: Readonly<Record<string, Caller>> = {
  'Bearer agent': agent,
  'Bearer stranger': { ...agent, workload: { source: 'dev', subject: 'agent-support' } },
  'Bearer operator': operator,
};

/** The app on a port of its own, with a caller for each of the tokens `agent`, `stranger` and `operator`. */
export async function startTestApp(options: TestAppOptions = {}): Promise<TestApp> {
  const log: string[] = [];
  const logger = createLogger('trace', { write: (line: string) => void log.push(line) });
  // Nobody listens there: a use case that is not replaced meets a store that is down.
  const db = new Database({ url: new Secret('postgres://nobody@127.0.0.1:1/none'), connections: 1, onError: () => {} });
  const deps: HttpDeps = {
    broker: {
      db,
      issuing: coalescedIssuing(db),
      ownedGrants: coalescedOwnedGrants(db),
      proofs: coalescedProofs(db),
      nonces: null,
      changes: { publish: () => {}, wait: options.wait ?? (async () => {}) },
      catalog: { ready: true, current: () => emptyRevision, refresh: async () => {} },
      identity: {
        verifyTaskRequest: () => Promise.reject(new MayflyError('request_malformed')),
        verifyTaskEvent: () => Promise.reject(new MayflyError('request_malformed')),
        verifyDelegation: () => Promise.reject(new MayflyError('request_malformed')),
        authenticate: async ({ authorization }) => {
          if (authorization === undefined) throw new MayflyError('workload_token_missing');
          const caller = callers[authorization];
          if (caller === undefined) throw new MayflyError('workload_token_invalid');
          return { caller, proof: null };
        },
        explain: () => Promise.reject(new MayflyError('internal')),
        signIn: () => Promise.reject(new MayflyError('login_failed')),
      },
      access: () => {
        throw new MayflyError('not_in_task');
      },
      alarms: { in: () => {}, now: () => {} },
      living: { remember: () => {} },
      drift: { wake: () => {}, spread: () => {} },
      kept: { remember: () => {} },
      observer: { decided: () => {}, minted: () => {}, signalled: () => {} },
      ids: randomIds,
      audience: 'http://127.0.0.1:7420',
      mintSeconds: 1,
      mintsPerTask: 1_000,
      sessionSeconds: 3_600,
      approvals: { pendingSeconds: 60, unusedSeconds: 60, perTask: 10 },
      proposals: noProposals(),
      tasksAlive: { hasRoom: async () => true },
      taskEvaluations: { hasRoom: async () => true },
      ownedRoots: { find: async () => undefined },
      log: (event, message) => logger.warn(event, message),
    },
    config: {
      public_url: 'http://127.0.0.1:7420',
      trusted_proxies: undefined,
      calls_per_address: 1_000_000,
      calls_per_caller: 1_000_000,
      evaluations_per_caller: 1_000_000,
      signals_per_source: 1_000_000,
      polls_per_caller: 1_000,
      ...options.config,
    },
    readiness: options.readiness ?? (async () => [{ part: 'store', ok: true }]),
    metrics: createMetrics(),
    queue: () => Promise.reject(new Error('down')),
    drift: () => Promise.reject(new Error('down')),
    signals: async () => [],
    webhooks: () => Promise.reject(new Error('down')),
    approvals: () => Promise.reject(new Error('down')),
    sweepAge: () => 0.5,
    log: logger,
    draining: options.draining ?? (() => false),
    useCases: { ...useCases, ...options.useCases },
  };
  const app = createApp(deps);
  const server = await startServer({
    app,
    config: {
      host: '127.0.0.1',
      port: 0,
      tls_cert_file: undefined,
      tls_key_file: undefined,
      tls_client_certificates: 'off',
    },
    log: logger,
  });
  let stopping: Promise<void> | undefined;
  return {
    ...server,
    app,
    logText: () => log.join(''),
    lines: () => log.map((line) => JSON.parse(line) as Record<string, unknown>),
    ask: (method, path, asked = {}) => ask(server.port, method, path, asked),
    raw: (text) => raw(server.port, text),
    stop: () => {
      stopping ??= server.close(5).then(() => db.close());
      return stopping;
    },
  };
}

const emptyRevision: ReturnType<HttpDeps['broker']['catalog']['current']> = {
  number: 1,
  catalog: {
    digest: 'sha256:00',
    files: {},
    trust: { taskIssuers: [], tokenIssuers: [], workloadSources: [], operators: [] },
    targets: new Map(),
    entitlements: new Map(),
    purposes: new Map(),
    limits: { toxic: [], atMost: [] },
    toolGateways: [],
    signalSources: [],
    webhooks: [],
    policySet: { schema: '', policies: [], entities: [] },
    changeControl: { serial: null, fourEyes: [] },
  },
  policy: {
    digest: 'sha256:00',
    decide: () => ({
      ...{
        permitted: false,
        policies: [],
        maxTtlSeconds: null,
        perCall: false,
        sealedDelivery: false,
        approvalGroups: [],
      },
      ...{ reasons: [], errors: [], inputs: {} },
    }),
    evaluate: () => ({
      ...{
        permitted: false,
        policies: [],
        maxTtlSeconds: null,
        perCall: false,
        sealedDelivery: false,
        approvalGroups: [],
      },
      ...{ reasons: [], errors: [], inputs: {}, unfit: null, singleUse: false },
    }),
  },
};

function ask(
  port: number,
  method: string,
  path: string,
  { headers = {}, body, token = 'agent' }: AskOptions,
): Promise<Reply> {
  const bytes = body === undefined || typeof body === 'string' || body instanceof Buffer ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const sent = httpRequest(
      {
        host: '127.0.0.1',
        port,
        method,
        path,
        agent: false,
        headers: {
          ...(token === false ? {} : { authorization: `Bearer ${token}` }),
          ...(bytes === undefined
            ? {}
            : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(bytes) }),
          ...headers,
        },
      },
      (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.on('error', reject);
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          const json = /json/.test(answer.headers['content-type'] ?? '') && text !== '';
          resolve({
            status: answer.statusCode ?? 0,
            headers: answer.headers,
            text,
            body: json ? JSON.parse(text) : undefined,
          });
        });
      },
    );
    sent.on('error', reject);
    sent.end(bytes);
  });
}

function raw(port: number, text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let answer = '';
    const socket = connect(port, '127.0.0.1', () => socket.write(text));
    socket.on('data', (chunk) => (answer += chunk.toString()));
    socket.on('error', reject);
    socket.on('close', () => resolve(answer));
  });
}
