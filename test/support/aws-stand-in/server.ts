import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import { type AwsAccount, documentOf, type PolicyStatement, trustOfAccount } from '../aws-account.ts';
import { answerIam } from './iam.ts';
import { Buckets, type Call, defaultKnobs, type Fault, type Knobs } from './knobs.ts';
import { Refusal } from './refusal.ts';
import { actionOf, answerS3 } from './s3.ts';
import { type Principal, State } from './state.ts';
import { answerSts } from './sts.ts';
import { errorAnswer, queryAnswer } from './xml.ts';

/**
 * An AWS account in this process for what test servers ignore: STS, IAM's inline policies and reading from S3, spoken to by the
 * real SDK. Signatures are not checked; policies are, by an evaluator that is not ours. What test and planner write to it
 * takes effect as its knobs say.
 */
export interface AwsStandIn extends AwsAccount {
  readonly knobs: Knobs;
  /** Every request so far, also those that failed. */
  readonly calls: readonly Call[];
  /** Its clock for sessions and conditions goes ahead of that of its answers and signatures. */
  advance(ms: number): void;
  /** Writes an inline policy, or deletes it, that decides at once. */
  putPolicy(role: string, name: string, statements: readonly PolicyStatement[] | undefined): void;
  /** The inline policies of a role as last written, by name. */
  policies(role: string): ReadonlyMap<string, string>;
  /** Those of them that decide now. */
  deciding(role: string): ReadonlyMap<string, string>;
  stop(): Promise<void>;
}

interface Answered {
  readonly status: number;
  readonly body: string;
}

/** AWS refuses a signature that is older, or from the future, by more. */
const SKEW_MS = 300_000;

export async function startAwsStandIn(): Promise<AwsStandIn> {
  const knobs = defaultKnobs();
  const state = new State(knobs);
  const calls: Call[] = [];
  const buckets = new Buckets();
  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const params = new URLSearchParams(await text(request));
    const call = callOf(request, url, params);
    calls.push(call);
    const fault = knobs.fault(call);
    const done = async () => {
      try {
        refuseThrottled(knobs, buckets, call);
        const caller = authenticate(state, knobs, call, request);
        return { status: 200, body: await answer(state, knobs, caller, call, url, params) };
      } catch (error) {
        if (error instanceof Refusal) return { status: error.status, body: errorAnswer(call.service, error) };
        throw error;
      }
    };
    await respond(knobs, request, response, call, fault, done);
  };
  const server = createServer((request, response) => {
    handle(request, response).catch((error: unknown) => {
      // A test that uses it wrongly sees why.
      console.error(error);
      response.writeHead(500).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('it listens nowhere');
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    region: 'eu-central-1',
    id: state.id,
    knobs,
    calls,
    makeRole: async (role) => ({ arn: state.addRole({ trust: trustOfAccount(state.id), ...role }).arn }),
    removeRole: async (name) => state.removeRole(state.roleCalled(name)),
    makeUser: async (name, policy) => state.addUser(name, policy).keys,
    makeBucket: async (name, objects = []) => void state.buckets.set(name, new Set(objects)),
    advance(ms) {
      state.aheadMs += ms;
    },
    putPolicy: (role, name, statements) =>
      state.write(state.roleCalled(role), name, statements && documentOf(statements), 0),
    policies: (role) => state.written(state.roleCalled(role)),
    deciding: (role) => state.deciding(state.roleCalled(role)),
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function callOf(request: IncomingMessage, url: URL, params: URLSearchParams): Call {
  const scope = /Credential=([^/]+)\/\d+\/[^/]+\/([^/]+)\//.exec(request.headers.authorization ?? '');
  const [, accessKeyId = '', service = ''] = scope ?? [];
  if (service !== 'iam' && service !== 'sts') return { service: 's3', action: actionOf(url), accessKeyId };
  const role = params.get('RoleName') ?? params.get('RoleArn')?.split('/').at(-1);
  const policy = params.get('PolicyName');
  const about = { ...(role !== undefined && { role }), ...(policy !== null && { policy }) };
  return { service, action: params.get('Action') ?? '', accessKeyId, ...about };
}

function refuseThrottled({ rates }: Knobs, buckets: Buckets, { service }: Call): void {
  const rate = service === 's3' ? undefined : rates[service];
  if (rate === undefined || buckets.take(service, rate)) return;
  throw new Refusal(400, rate.code ?? 'Throttling', 'Rate exceeded');
}

function authenticate(state: State, knobs: Knobs, call: Call, request: IncomingMessage): Principal {
  const s3 = call.service === 's3';
  const found = state.principal(call.accessKeyId);
  const token = request.headers['x-amz-security-token'];
  // Also for sessions of a role that is gone.
  if (found === undefined || token !== found.keys.sessionToken || (found.kind === 'session' && found.role.deleted)) {
    throw new Refusal(403, s3 ? 'InvalidAccessKeyId' : 'InvalidClientTokenId', 'The security token is invalid');
  }
  const [, day = '', time = ''] = /^(\d{8})T(\d{6})Z$/.exec(String(request.headers['x-amz-date'])) ?? [];
  const signedAt = Date.parse(`${day.replace(/(....)(..)/, '$1-$2-')}T${time.replace(/(..)(..)/, '$1:$2:')}Z`);
  if (!(Math.abs(signedAt - Date.now() - knobs.clockOffsetMs) <= SKEW_MS)) {
    throw new Refusal(
      403,
      s3 ? 'RequestTimeTooSkewed' : 'SignatureDoesNotMatch',
      'Signature not yet current, or expired',
    );
  }
  if (found.kind === 'session' && found.expiresAt <= state.now()) {
    throw new Refusal(s3 ? 400 : 403, 'ExpiredToken', 'The security token included in the request is expired');
  }
  return found;
}

async function answer(
  state: State,
  knobs: Knobs,
  caller: Principal,
  { service, action }: Call,
  url: URL,
  params: URLSearchParams,
): Promise<string> {
  if (service === 's3') return await answerS3(state, caller, url);
  if (service === 'iam') return queryAnswer(action, await answerIam(state, caller, params));
  return queryAnswer(action, await answerSts(state, knobs, caller, params));
}

async function respond(
  knobs: Knobs,
  request: IncomingMessage,
  response: ServerResponse,
  call: Call,
  fault: Fault | undefined,
  done: () => Promise<Answered>,
): Promise<void> {
  const send = ({ status, body }: Answered) => {
    const date = new Date(Date.now() + knobs.clockOffsetMs).toUTCString();
    const type = call.service === 's3' && status === 200 ? 'text/plain' : 'text/xml';
    response.sendDate = false;
    response.writeHead(status, { date, 'content-type': type, 'content-length': Buffer.byteLength(body) });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
  if (fault === undefined) return send(await done());
  if (fault.kind === 'slow') {
    await sleep(fault.ms, undefined, { ref: false });
    return send(await done());
  }
  if (fault.kind === 'held') {
    await fault.until;
    return send(await done());
  }
  if (fault.done === true) await done();
  if (fault.kind === 'garbled') return send({ status: 200, body: fault.body });
  if (fault.kind === 'drop') return void request.socket.destroy();
  if (fault.kind === 'error') {
    const refusal = new Refusal(fault.status, fault.code, 'by a knob');
    send({ status: fault.status, body: errorAnswer(call.service, refusal) });
  }
}
