import { z } from 'zod';
import { ProviderError, within } from '../../src/provider.ts';
import { type Ask, Node, type NodeOptions } from './client.ts';
import { refusal } from './errors.ts';
import { type Received, Unreached } from './transport.ts';

/** Milliseconds in which nodes say whether they are active. */
const greetingMillis = 2000;

const healthSchema = z.object({
  initialized: z.boolean(),
  sealed: z.boolean(),
  standby: z.boolean(),
  version: z.string(),
  cluster_id: z.string().optional(),
});
export interface Health extends z.infer<typeof healthSchema> {
  readonly address: string;
  readonly date: Date | null;
}

/** The nodes of one cluster: whoever answers is kept to; another is asked when it can not be reached, or is sealed. */
export class Nodes {
  readonly #nodes: readonly Node[];
  #current: Node | undefined;

  constructor(addresses: readonly string[], options: NodeOptions) {
    this.#nodes = addresses.map((address) => new Node(address, options));
  }

  /**
   * @param again Whether it may be sent to another node although the first may have done it.
   * @throws Unreached when no node answers; ProviderError when all are sealed.
   */
  async ask(ask: Ask, again: boolean): Promise<Received> {
    const first = this.#current ?? (await this.#prefer(ask.signal));
    let failure: ProviderError | undefined;
    for (const node of [...(first ? [first] : []), ...this.#nodes.filter((other) => other !== first)]) {
      try {
        const received = await askFresh(node, ask, again);
        if (!isAway(received)) {
          this.#current = node;
          return received;
        }
        failure = refusal(received, at(node));
      } catch (error) {
        if (!(error instanceof Unreached)) throw error;
        failure = new Unreached(`${at(node)}: ${error.message}`, error.sent, error);
        if (error.sent && !again) break;
      }
      this.#current = undefined;
      if (ask.signal.aborted) break;
    }
    throw failure ?? new Unreached('no address is known', false);
  }

  /** What the node that is asked says of itself. Needs no token. @throws Unreached, ProviderError */
  async health(signal: AbortSignal): Promise<Health> {
    const received = await this.ask({ method: 'GET', path: 'sys/health', signal }, true);
    const parsed = healthSchema.safeParse(received.body);
    if (!parsed.success) throw new ProviderError('retryable', 'reading its health: the answer is not what Vault gives');
    return { ...parsed.data, address: (this.#current ?? this.#nodes[0])?.address ?? '', date: received.date };
  }

  close(): void {
    for (const node of this.#nodes) node.close();
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

/** It did nothing: sealed, or no node that takes requests. */
function isAway({ status }: Received): boolean {
  return status === 503 || status === 472 || status === 501;
}

function at(node: Node): string {
  return `asking ${node.address}`;
}
