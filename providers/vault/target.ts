import { type ConnectContext, ProviderError } from '../../src/provider.ts';
import type { Ask } from './client.ts';
import { Engines } from './engines.ts';
import { refusal } from './errors.ts';
import { Inventory } from './inventory.ts';
import { BrokerToken } from './login.ts';
import { type Health, Nodes } from './nodes.ts';
import { KeptRecord } from './record.ts';
import type { VaultTarget } from './schema.ts';
import type { Received } from './transport.ts';

type Call = Omit<Ask, 'token' | 'signal'>;

/** Grants that this process has minted and remembers. */
const mostRemembered = 10_000;

/** One target as the parts of this provider share it. Opening it touches no network. */
export class Target {
  readonly config: VaultTarget;
  readonly context: ConnectContext;
  /** Issuing never waits for revoking, nor the other way round: each has connections of its own. */
  readonly issuing: Lane;
  readonly revoking: Lane;
  readonly inventory: Inventory;
  readonly engines: Engines;
  /** Null where the target keeps none. */
  readonly record: KeptRecord | null;
  readonly token: BrokerToken;
  readonly #nodes: readonly Nodes[];
  readonly #minted = new Set<string>();

  constructor(config: VaultTarget, context: ConnectContext) {
    this.config = config;
    this.context = context;
    const { ca } = config;
    const options = {
      namespace: config.namespace,
      ca: () => (ca === undefined ? undefined : context.secret(ca).reveal()),
      connectMillis: config.connect_timeout_ms,
      totalMillis: config.request_timeout_seconds * 1000,
    };
    const [issuing, revoking, login] = [1, 2, 3].map(() => new Nodes(config.addresses, options));
    if (issuing === undefined || revoking === undefined || login === undefined) throw new Error('unreachable');
    this.#nodes = [issuing, revoking, login];
    this.token = new BrokerToken(config, context, login);
    this.issuing = new Lane(issuing, this.token);
    this.revoking = new Lane(revoking, this.token);
    this.inventory = new Inventory(this);
    this.engines = new Engines(this);
    this.record = config.record === 'none' ? null : new KeptRecord(config.record.mount);
  }

  /** Nothing in Vault keeps two tokens from bearing one handle. @throws ProviderError `gone` the second time. */
  mintsOnce(handle: string): void {
    if (this.#minted.has(handle)) throw new ProviderError('gone', 'minting: this grant was minted or ended before');
    this.forbid(handle);
  }

  /** From here on this process mints nothing by that handle. */
  forbid(handle: string): void {
    this.#minted.add(handle);
    const [oldest] = this.#minted;
    if (this.#minted.size > mostRemembered && oldest !== undefined) this.#minted.delete(oldest);
  }

  close(): void {
    this.token.close();
    for (const nodes of this.#nodes) nodes.close();
  }
}

/** Calls in the broker's name, on connections that others do not use. */
export class Lane {
  readonly #nodes: Nodes;
  readonly #token: BrokerToken;

  constructor(nodes: Nodes, token: BrokerToken) {
    this.#nodes = nodes;
    this.#token = token;
  }

  /**
   * The answer, which has one of these statuses.
   * @param once For what must not be done twice: an answer that was lost is then a failure.
   * @throws ProviderError
   */
  async call(
    doing: string,
    call: Call,
    signal: AbortSignal,
    good: readonly number[] = [200, 204],
    once = false,
  ): Promise<Received> {
    const token = await this.#token.get(signal);
    let received = await this.#nodes.ask({ ...call, token, signal }, !once);
    // It did nothing. Either the broker may not do it, or its token is dead and nothing can be done with it.
    if (received.status === 403 && !good.includes(403) && (await this.#isDead(token, signal))) {
      this.#token.forget(token);
      received = await this.#nodes.ask({ ...call, token: await this.#token.get(signal), signal }, !once);
    }
    if (!good.includes(received.status)) throw refusal(received, doing);
    return received;
  }

  /** In the name of a grant's own token, once. @throws ProviderError */
  async as(token: string, doing: string, call: Call, signal: AbortSignal): Promise<Received> {
    const received = await this.#nodes.ask({ ...call, token, signal }, false);
    if (received.status !== 200) throw refusal(received, doing);
    return received;
  }

  /** What it answers to that token. @throws ProviderError when it can not be asked. */
  async status(token: string, call: Call, signal: AbortSignal): Promise<number> {
    return (await this.#nodes.ask({ ...call, token, signal }, false)).status;
  }

  /** @throws ProviderError when it is sealed or can not be asked. */
  async health(signal: AbortSignal): Promise<Health & { readonly cluster_id: string }> {
    const health = await this.#nodes.health(signal);
    const { cluster_id: clusterId } = health;
    if (clusterId === undefined)
      throw refusal({ status: 503, body: { errors: ['Vault is sealed'] }, date: null }, 'reading its health');
    return { ...health, cluster_id: clusterId };
  }

  async #isDead(token: string, signal: AbortSignal): Promise<boolean> {
    const { status } = await this.#nodes.ask({ method: 'GET', path: 'auth/token/lookup-self', token, signal }, true);
    return status === 403;
  }
}
