import { z } from 'zod';
import { ProviderError, within } from '../../src/provider.ts';
import { type Ask, Node, type NodeOptions } from './client.ts';
import { isAway, refusal } from './errors.ts';
import { type Received, Unreached } from './transport.ts';

/** Milliseconds in which nodes say whether they are active. */
const greetingMillis = 2000;

const healthSchema = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  /** It may answer from what it has copied so far. */
  performance_standby: z.boolean().optional(),
  version: z.string(),
  cluster_id: z.string().optional(),
});
export interface Health extends Omit<z.infer<typeof healthSchema>, 'cluster_id'> {
  readonly cluster_id: string;
  readonly address: string;
  readonly date: Date | null;
}

/** Who answers calls: any node of a cluster, or one that is kept to. */
export interface Asked {
  ask(ask: Ask, again: boolean): Promise<Received>;
  health(signal: AbortSignal): Promise<Health>;
  /** Whether it is still who it was. @throws ProviderError when it is not, or does not say. */
  confirm(signal: AbortSignal): Promise<void>;
}

/** What one address says of itself, or why it says nothing. */
export type Surveyed = { readonly address: string } & (
  | { readonly health: Health }
  | { readonly error: ProviderError; readonly health?: undefined }
);

/** The nodes of one cluster: whoever answers is kept to; another is asked when it can not be reached, or is sealed. */
export class Nodes implements Asked {
  readonly #nodes: readonly Node[];
  #current: Node | undefined;

  constructor(addresses: readonly string[], options: NodeOptions) {
    this.#nodes = addresses.map((address) => new Node(address, options));
  }

  /**
   * @param again Whether it may be sent to another node although the first may have done it.
   * @param answered Told which of them it was.
   * @throws Unreached when no node answers; ProviderError when all are sealed.
   */
  async ask(ask: Ask, again: boolean, answered?: (node: Node) => void): Promise<Received> {
    let failure: ProviderError | undefined;
    for (const node of await this.#order(ask.signal)) {
      try {
        const received = await askAt(node, ask, again);
        this.#current = node;
        answered?.(node);
        return received;
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        failure = error;
        if (error instanceof Unreached && error.sent && !again) break;
      }
      this.#current = undefined;
      if (ask.signal.aborted) break;
    }
    throw failure ?? new Unreached('no address is known', false);
  }

  /** What the node that is asked says of itself. Needs no token. @throws Unreached, ProviderError */
  async health(signal: AbortSignal): Promise<Health> {
    let asked: Node | undefined;
    const received = await this.ask({ method: 'GET', path: 'sys/health', signal }, true, (node) => (asked = node));
    return healthIn(received, asked?.address ?? '');
  }

  /** Whoever answers is who it is. */
  async confirm(): Promise<void> {}

  /** What each address says of itself. */
  async survey(signal: AbortSignal): Promise<readonly Surveyed[]> {
    return await Promise.all(
      this.#nodes.map(async (node): Promise<Surveyed> => {
        const { address } = node;
        try {
          return { address, health: await healthOf(node, signal) };
        } catch (error) {
          const failure =
            error instanceof ProviderError ? error : new ProviderError('retryable', `${at(node)}: failed`);
          return { address, error: failure };
        }
      }),
    );
  }

  /**
   * The node that says it is the active one, to be kept to. What a standby knows may be old, and of what it does not know yet it
   * would say that it is not there.
   * @throws ProviderError when no address leads to it.
   */
  async pin(signal: AbortSignal): Promise<Pin> {
    let failure: ProviderError | undefined;
    for (const node of await this.#order(signal)) {
      try {
        const health = await healthOf(node, signal);
        if (isActive(health)) {
          this.#current = node;
          return this.#pinned(node, health);
        }
        failure ??= new ProviderError('retryable', `${at(node)}: it is a standby, and only the active node can prove`, {
          wholeTarget: true,
        });
      } catch (error) {
        if (!(error instanceof ProviderError)) throw error;
        failure = error;
      }
      this.#current = undefined;
      if (signal.aborted) break;
    }
    throw failure ?? new Unreached('no address is known', false);
  }

  /** The node of another's pin. @throws ProviderError */
  pinLike(other: Pin): Pin {
    const node = this.#nodes.find(({ address }) => address === other.kept.address);
    if (node === undefined) throw new ProviderError('misconfigured', 'no such address is known');
    return this.#pinned(node, other.kept);
  }

  close(): void {
    for (const node of this.#nodes) node.close();
  }

  #pinned(node: Node, health: Health): Pin {
    return new Pin(node, health, () => {
      if (this.#current === node) this.#current = undefined;
    });
  }

  async #order(signal: AbortSignal): Promise<readonly Node[]> {
    const first = this.#current ?? (await this.#prefer(signal));
    return [...(first ? [first] : []), ...this.#nodes.filter((other) => other !== first)];
  }

  /** The first that is active; else the first that answers at all. With one address there is nothing to choose. */
  async #prefer(signal: AbortSignal): Promise<Node | undefined> {
    if (this.#nodes.length === 1) return this.#nodes[0];
    const limited = within(greetingMillis, signal);
    const statuses = await Promise.all(
      this.#nodes.map((node) =>
        node.ask({ method: 'GET', path: 'sys/health', signal: limited }).then(
          ({ status }) => status,
          () => 0,
        ),
      ),
    );
    const active = statuses.indexOf(200);
    return this.#nodes[
      active === -1
        ? Math.max(
            0,
            statuses.findIndex((status) => status === 429 || status === 473),
          )
        : active
    ];
  }
}

/** One node, and no other: what it says is of one cluster, at one time. */
export class Pin implements Asked {
  /** What it said of itself at first. */
  readonly kept: Health;
  readonly #node: Node;
  readonly #lost: () => void;

  constructor(node: Node, kept: Health, lost: () => void) {
    this.kept = kept;
    this.#node = node;
    this.#lost = lost;
  }

  async ask(ask: Ask, again: boolean): Promise<Received> {
    try {
      return await askAt(this.#node, ask, again);
    } catch (error) {
      this.#lost();
      throw error;
    }
  }

  async health(): Promise<Health> {
    return this.kept;
  }

  async confirm(signal: AbortSignal): Promise<void> {
    const now = await healthOf(this.#node, signal);
    if (isActive(now) && now.cluster_id === this.kept.cluster_id) return;
    this.#lost();
    throw new Moved(
      now.cluster_id === this.kept.cluster_id
        ? `${at(this.#node)}: another became the active node meanwhile`
        : `${at(this.#node)}: another cluster answers there than before`,
    );
  }
}

/** What was seen at the begin and at the end was not one and the same. */
export class Moved extends ProviderError {
  constructor(message: string) {
    super('retryable', message, { wholeTarget: true });
    this.name = 'Moved';
  }
}

async function healthOf(node: Node, signal: AbortSignal): Promise<Health> {
  return healthIn(await askAt(node, { method: 'GET', path: 'sys/health', signal }, true), node.address);
}

/** @throws ProviderError */
function healthIn(received: Received, address: string): Health {
  const parsed = healthSchema.safeParse(received.body);
  if (!parsed.success) throw new ProviderError('retryable', 'reading its health: the answer is not what Vault gives');
  const { cluster_id: clusterId, ...rest } = parsed.data;
  if (clusterId === undefined)
    throw refusal({ status: 503, body: { errors: ['Vault is sealed'] }, date: null }, 'reading its health');
  return { ...rest, cluster_id: clusterId, address, date: received.date };
}

function isActive({ standby, performance_standby: copies }: Health): boolean {
  return !standby && copies !== true;
}

/** @throws Unreached; ProviderError when it is sealed, or none that takes requests. */
async function askAt(node: Node, ask: Ask, again: boolean): Promise<Received> {
  try {
    const received = await askFresh(node, ask, again);
    if (isAway(received)) throw refusal(received, at(node));
    // By whom it is not known, nor what was done before.
    if (received.status === 503) throw new Unreached('it is not available (503)', true);
    return received;
  } catch (error) {
    throw error instanceof Unreached ? new Unreached(`${at(node)}: ${error.message}`, error.sent, error) : error;
  }
}

/** A connection that stood for a while may have been closed by the server as it was used: another is opened, once. */
async function askFresh(node: Node, ask: Ask, again: boolean): Promise<Received> {
  try {
    return await node.ask(ask);
  } catch (error) {
    if (!(error instanceof Unreached) || !error.stale || !again || ask.signal.aborted) throw error;
    node.reconnect();
    return await node.ask(ask);
  }
}

function at(node: Node): string {
  return `asking ${node.address}`;
}
