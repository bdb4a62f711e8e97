import { IAMClient } from '@aws-sdk/client-iam';
import { STSClient } from '@aws-sdk/client-sts';
import type { ConnectContext } from '../../src/provider.ts';
import type { AwsClock } from './clock.ts';
import { classify } from './errors.ts';
import type { AwsTarget } from './schema.ts';

/** The SDK is pinned to releases for Node 20, and would say at each start that others are not. Whoever set it is left his word. */
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';

/** Milliseconds for one request. The calls of the broker have deadlines of their own, which are longer. */
const requestMillis = 5_000;
const connectMillis = 2_000;
/** Rotated keys in files are read again after that. */
const keysMillis = 60_000;

/** Before the answer is parsed, so that errors are heard too. */
const place = { step: 'deserialize', name: 'mayflyClock', priority: 'low' } as const;

export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface AwsClients {
  readonly sts: STSClient;
  readonly iam: IAMClient;
}

/** Each request is sent once: what becomes of one without an answer is for the caller to think about. */
export function clientsOf(config: AwsTarget, context: ConnectContext, clock: AwsClock): AwsClients {
  const common = { ...settings(config), ...keysOf(config, context) };
  const { sts, iam } = config.endpoints;
  const clients = {
    sts: new STSClient({ ...common, ...(sts !== undefined && { endpoint: sts }) }),
    iam: new IAMClient({ ...common, ...(iam !== undefined && { endpoint: iam }) }),
  };
  clients.sts.middlewareStack.add(listener(clock), place);
  clients.iam.middlewareStack.add(listener(clock), place);
  return clients;
}

/** IAM as a probe sees it, by connections of its own. */
export function probingIam(config: AwsTarget, keys: AwsKeys, clock: AwsClock): IAMClient {
  const { iam } = config.endpoints;
  const client = new IAMClient({ ...settings(config), credentials: keys, ...(iam !== undefined && { endpoint: iam }) });
  client.middlewareStack.add(listener(clock), place);
  return client;
}

/** STS as a canary asks it. */
export function canarySts(config: AwsTarget, keys: AwsKeys): STSClient {
  const { sts } = config.endpoints;
  return new STSClient({ ...settings(config), credentials: keys, ...(sts !== undefined && { endpoint: sts }) });
}

function settings({ region }: AwsTarget) {
  const requestHandler = {
    requestTimeout: requestMillis,
    connectionTimeout: connectMillis,
    throwOnRequestTimeout: true,
  };
  return { region, maxAttempts: 1, requestHandler };
}

/** The keys that the target names, read again now and then; or none, and the SDK's chain finds them. */
function keysOf({ broker }: AwsTarget, context: ConnectContext) {
  if (broker === undefined) return {};
  const read = (reference: string) => context.secret(reference).reveal().trim();
  return {
    credentials: async () => ({
      accessKeyId: read(broker.access_key_id),
      secretAccessKey: read(broker.secret_access_key),
      ...(broker.session_token !== undefined && { sessionToken: read(broker.session_token) }),
      expiration: new Date(Date.now() + keysMillis),
    }),
  };
}

/** Every answer tells AWS's time, a refusal too. */
function listener(clock: AwsClock) {
  return <A, R extends { readonly response: unknown }>(next: (args: A) => Promise<R>) =>
    async (args: A): Promise<R> => {
      const sent = performance.now();
      const result = await next(args);
      const date = member(member(result.response, 'headers'), 'date');
      if (typeof date === 'string') clock.heard(date, sent, performance.now());
      return result;
    };
}

/** @throws AwsError whatever the call throws. */
export async function ask<T>(doing: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw classify(error, doing);
  }
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}
