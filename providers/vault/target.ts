import { type ConnectContext, ProviderError } from '../../src/provider.ts';
import type { Ask } from './client.ts';
import { Engines } from './engines.ts';
import { refusal } from './errors.ts';
import type { Place } from './handle.ts';
import { Inventory } from './inventory.ts';
import { BrokerToken } from './login.ts';
import { type Asked, type Health, Moved, Nodes, type Surveyed } from './nodes.ts';
import { Notes } from './notes.ts';
import { KeptRecord } from './record.ts';
import type { VaultTarget } from './schema.ts';
import type { Received } from './transport.ts';

type Call = Omit<Ask, 'token' | 'signal'>;

/** Reads at once that wait for systems behind Vault. */
const mostReads = 256;
/** Grants that this process has minted and remembers. */
const mostRemembered = 10_000;

/** One target as the parts of this provider share it. Opening it touches no network. */
export class Target {
  readonly config: VaultTarget;
  readonly context: ConnectContext;
  /** Issuing never waits for revoking, nor the other way round: each has connections of its own. */
  readonly issuing: Lane;
  readonly revoking: Lane;
  /** For what a system behind Vault may keep waiting. */
  readonly reading: Lane;
  readonly place: Place;
  readonly inventory: Inventory;
  readonly engines: Engines;
  /** Null where the target keeps none. */
  readonly record: KeptRecord | null;
  readonly notes: Notes | null;
  readonly token: BrokerToken;
  readonly #nodes: Readonly<Record<keyof Lanes | 'login', Nodes>>;
  readonly #minted: Set<string>;
  readonly #reaped: Set<string>;

  /** @param at One node of another's, which has all else from that one. */
  constructor(config: VaultTarget, context: ConnectContext, at?: { readonly whole: Target } & Lanes) {
    this.config = config;
    this.context = context;
    if (at !== undefined) {
      ({ issuing: this.issuing, revoking: this.revoking, reading: this.reading } = at);
      const { whole } = at;
      [this.place, this.inventory, this.engines] = [whole.place, whole.inventory, whole.engines];
      [this.record, this.notes, this.token] = [whole.record, whole.notes, whole.token];
      [this.#nodes, this.#minted, this.#reaped] = [whole.#nodes, whole.#minted, whole.#reaped];
      return;
    }
    const { ca } = config;
    const options = {
      namespace: config.namespace,
      ca: () => (ca === undefined ? undefined : context.secret(ca).reveal()),
      connectMillis: config.connect_timeout_ms,
      totalMillis: config.request_timeout_seconds * 1000,
    };
    const nodes = (connections?: number): Nodes =>
      new Nodes(config.addresses, { ...options, ...(connections === undefined ? {} : { connections }) });
    this.#nodes = { issuing: nodes(), revoking: nodes(), reading: nodes(mostReads), login: nodes() };
    [this.#minted, this.#reaped] = [new Set(), new Set()];
    this.token = new BrokerToken(config, context, this.#nodes.login);
    this.issuing = new Lane(this.#nodes.issuing, this.token);
    this.revoking = new Lane(this.#nodes.revoking, this.token);
    this.reading = new Lane(this.#nodes.reading, this.token);
    this.inventory = new Inventory(this);
    this.engines = new Engines();
    const mount = config.record === 'none' ? null : config.record.mount;
    this.place = { namespace: config.namespace ?? '', role: config.token_role, record: mount ?? '' };
    this.record = mount === null ? null : new KeptRecord(mount, (event, says) => context.log(event, says));
    this.notes = mount === null ? null : new Notes(mount);
  }

  /**
   * The same target by way of one node alone, the active one. What is not found counts only in the cluster that was named, and what
   * another node has not heard of yet is not gone.
   * @param by On whose connections that node is chosen.
   * @throws ProviderError when no address leads to it.
   */
  async pinned(by: keyof Lanes, signal: AbortSignal): Promise<Target> {
    const pin = await this.#nodes[by].pin(signal);
    const lane = (name: keyof Lanes) => new Lane(name === by ? pin : this.#nodes[name].pinLike(pin), this.token);
    const lanes = { issuing: lane('issuing'), revoking: lane('revoking'), reading: lane('reading') };
    return new Target(this.config, this.context, { whole: this, ...lanes });
  }

  /**
   * Work by way of one node, that says at the end, too, who it is.
   * @param proves What comes of it proves something: it holds only when that was said.
   * @throws ProviderError when it was another in the end.
   */
  async atOneNode<T>(
    by: keyof Lanes,
    signal: AbortSignal,
    work: (there: Target) => Promise<T>,
    proves = true,
  ): Promise<T> {
    const there = await this.pinned(by, signal);
    const done = await work(there);
    await there[by].confirm(signal).catch((error: unknown) => {
      if (proves || error instanceof Moved) throw error;
    });
    return done;
  }

  /** Whether the node that is kept to is still who it was. @throws ProviderError */
  async confirm(signal: AbortSignal): Promise<void> {
    await this.issuing.confirm(signal);
  }

  /** What each address says of itself. */
  async survey(signal: AbortSignal): Promise<readonly Surveyed[]> {
    return await this.#nodes.issuing.survey(signal);
  }

  /** Nothing in Vault keeps two tokens from bearing one handle. @throws ProviderError `gone` the second time. */
  mintsOnce(handle: string): void {
    if (this.#minted.has(handle)) throw new ProviderError('gone', 'minting: this grant was minted or ended before');
    this.forbid(handle);
  }

  /** From here on this process mints nothing by that handle. */
  forbid(handle: string): void {
    keep(this.#minted, handle);
  }

  /** Its note was forgotten, since nothing is left of it. */
  remember(handle: string): void {
    keep(this.#reaped, handle);
  }

  isReaped(handle: string): boolean {
    return this.#reaped.has(handle);
  }

  close(): void {
    this.token.close();
    for (const nodes of Object.values(this.#nodes)) nodes.close();
  }
}

function keep(handles: Set<string>, handle: string): void {
  handles.add(handle);
  const [oldest] = handles;
  if (handles.size > mostRemembered && oldest !== undefined) handles.delete(oldest);
}

interface Lanes {
  readonly issuing: Lane;
  readonly revoking: Lane;
  readonly reading: Lane;
}

/** Calls in the broker's name, on connections that others do not use. */
export class Lane {
  readonly #nodes: Asked;
  readonly #token: BrokerToken;

  constructor(nodes: Asked, token: BrokerToken) {
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
      // Or another cluster answers by now, which does not know it.
      await this.#nodes.confirm(signal);
      received = await this.#nodes.ask({ ...call, token: await this.#token.get(signal), signal }, !once);
    }
    if (!good.includes(received.status)) throw refusal(received, doing);
    return received;
  }

  /** Whatever is answered to a grant's own token, once. @throws ProviderError when nothing is. */
  async as(token: string, call: Call, signal: AbortSignal): Promise<Received> {
    return await this.#nodes.ask({ ...call, token, signal }, false);
  }

  /** What it answers to that token. @throws ProviderError when it can not be asked. */
  async status(token: string, call: Call, signal: AbortSignal): Promise<number> {
    return (await this.#nodes.ask({ ...call, token, signal }, false)).status;
  }

  /** @throws ProviderError when it is sealed or can not be asked. */
  async health(signal: AbortSignal): Promise<Health> {
    return await this.#nodes.health(signal);
  }

  /** @throws ProviderError */
  async confirm(signal: AbortSignal): Promise<void> {
    await this.#nodes.confirm(signal);
  }

  async #isDead(token: string, signal: AbortSignal): Promise<boolean> {
    const { status } = await this.#nodes.ask({ method: 'GET', path: 'auth/token/lookup-self', token, signal }, true);
    return status === 403;
  }
}
