import http from 'node:http';
import https from 'node:https';
import nodeVault from 'node-vault';
import { ProviderError } from '../../src/provider.ts';
import { exchange, type Received, Unreached } from './transport.ts';

/** Milliseconds after which a connection that nobody uses is closed: before a server or a balancer would. */
const idleMillis = 30_000;
const connectionsAtOnce = 16;

/** One call. */
export interface Ask {
  readonly method: 'GET' | 'POST' | 'LIST' | 'DELETE';
  /** Without `/v1/`, and without a slash at its begin. */
  readonly path: string;
  readonly data?: Readonly<Record<string, unknown>>;
  /** Absent: who asks is not said. */
  readonly token?: string;
  /** Seconds for which the answer is wrapped. */
  readonly wrap?: number;
  /** Milliseconds for it, where that is not what other calls have. */
  readonly totalMillis?: number;
  readonly signal: AbortSignal;
}

export interface NodeOptions {
  readonly namespace: string | undefined;
  readonly ca: () => string | undefined;
  readonly connectMillis: number;
  readonly totalMillis: number;
  /** At once. */
  readonly connections?: number;
}

/** Only the root namespace answers these. */
const withoutNamespace = /^sys\/health$/;

/** What node-vault hands to its transport: our own call, through its request options. */
interface Handed {
  readonly method: string;
  readonly path: string;
  readonly json?: unknown;
  readonly mayfly: { readonly ask: Ask; received?: Received };
}

/**
 * One node of a cluster, by node-vault on a transport of our own: its own follows redirects with the token, has no time-out, and
 * its errors hold the request. Settings that it takes from the environment (VAULT_TOKEN, VAULT_NAMESPACE, …) have no effect.
 */
export class Node {
  readonly address: string;
  readonly #options: NodeOptions;
  readonly #client: nodeVault.client;
  #agent: http.Agent | undefined;
  /** With what is still on its way over them. */
  readonly #agents = new Set<http.Agent>();

  constructor(address: string, options: NodeOptions) {
    this.address = address;
    this.#options = options;
    this.#client = nodeVault({
      apiVersion: 'v1',
      endpoint: address,
      // A Node server refuses the verb LIST, and so may what stands between.
      noCustomHTTPVerbs: true,
      debug: () => {},
      'request-promise': { defaults: () => (handed: Handed) => this.#exchange(handed) },
    });
  }

  /** The answer, whatever its status. @throws Unreached; ProviderError when a reference to its certificates leads nowhere. */
  async ask(ask: Ask): Promise<Received> {
    const mayfly: Handed['mayfly'] = { ask };
    try {
      await this.#call(ask, { mayfly });
    } catch (error) {
      // It throws for each status but 200 and 204, and what it throws holds the body.
      if (mayfly.received === undefined)
        throw error instanceof ProviderError ? error : new Unreached('it could not be asked', true);
    }
    return mayfly.received ?? { status: 0, body: null, date: null };
  }

  /** What comes next goes over new connections. What is on its way stays. */
  reconnect(): void {
    this.#agent = undefined;
  }

  close(): void {
    for (const agent of this.#agents) agent.destroy();
    this.#agents.clear();
    this.#agent = undefined;
  }

  async #call(ask: Ask, options: { readonly mayfly: Handed['mayfly'] }): Promise<void> {
    switch (ask.method) {
      case 'GET':
        await this.#client.read(ask.path, options);
        return;
      case 'POST':
        await this.#client.write(ask.path, ask.data ?? {}, options);
        return;
      case 'LIST':
        await this.#client.list(ask.path, options);
        return;
      case 'DELETE':
        await this.#client.delete(ask.path, options);
    }
  }

  async #exchange({ method, path, json, mayfly }: Handed): Promise<object> {
    const { ask } = mayfly;
    const { namespace, connectMillis, totalMillis } = this.#options;
    const body = json === undefined ? undefined : JSON.stringify(json);
    const headers = {
      'X-Vault-Request': 'true',
      ...(ask.token === undefined ? {} : { 'X-Vault-Token': ask.token }),
      ...(namespace === undefined || withoutNamespace.test(ask.path) ? {} : { 'X-Vault-Namespace': namespace }),
      ...(ask.wrap === undefined ? {} : { 'X-Vault-Wrap-TTL': `${ask.wrap}s` }),
      ...(body === undefined
        ? {}
        : { 'Content-Type': 'application/json', 'Content-Length': `${Buffer.byteLength(body)}` }),
    };
    try {
      mayfly.received = await exchange({
        ...{
          method,
          origin: this.address,
          path: `/v1${path}`,
          headers,
          connectMillis,
          totalMillis: ask.totalMillis ?? totalMillis,
        },
        ...(body === undefined ? {} : { body }),
        agent: this.#connections(),
        signal: ask.signal,
      });
    } catch (error) {
      // The certificates may have been replaced: they are read again.
      if (error instanceof Unreached && error.errorClass === 'misconfigured') this.reconnect();
      throw error;
    }
    const { status, body: answer } = mayfly.received;
    return { statusCode: status, body: answer, request: { path } };
  }

  #connections(): http.Agent {
    const settings = {
      keepAlive: true,
      timeout: idleMillis,
      maxSockets: this.#options.connections ?? connectionsAtOnce,
    };
    if (this.#agent !== undefined) return this.#agent;
    // Those that have no connection any more.
    for (const old of this.#agents)
      if (Object.keys(old.sockets).length + Object.keys(old.freeSockets).length === 0) this.#agents.delete(old);
    const ca = this.#options.ca();
    this.#agent = this.address.startsWith('https:')
      ? new https.Agent({ ...settings, ...(ca === undefined ? {} : { ca }), minVersion: 'TLSv1.2' })
      : new http.Agent(settings);
    this.#agents.add(this.#agent);
    return this.#agent;
  }
}
