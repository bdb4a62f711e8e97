import pg from 'pg';
import { type AgentKey, type MintedBody, MayflyClient, ProblemError } from '../../src/client/index.ts';
import type { Fall, RunningBroker } from '../support/broker-process.ts';
import type { House, SignOptions } from '../support/house.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';
import type { Eye } from './eye.ts';

/** How long anything may take before it counts as stuck. */
export const PATIENCE_MILLIS = Number(process.env['MAYFLY_CRASH_PATIENCE'] ?? 40) * 1000;

export const INVOICES = 'ledger-db/read-invoices';
export const PAYMENTS = 'ledger-db/read-payments';

/** A credential in the hands of an agent, with a session open. */
export interface Held {
  readonly grant: MintedBody;
  /** With the password. */
  readonly url: string;
  readonly session: pg.Client;
}

/** One case: a house, what its agents did, and when its broker was away. */
export class World {
  readonly house: House;
  readonly eye: Eye;
  readonly proxy: TcpProxy;
  /** Where agents ask. */
  url: string;
  /** Milliseconds during which no broker was there, or none could do anything. */
  awayMillis = 0;
  /** Milliseconds that it may take to notice after that. */
  graceMillis = 0;
  readonly #held: Held[] = [];
  #downSince: number | undefined;

  constructor(house: House, eye: Eye, proxy: TcpProxy) {
    this.house = house;
    this.eye = eye;
    this.proxy = proxy;
    this.url = house.url;
  }

  /** @param key goes with every call as its Idempotency-Key. @param agentKey proves every call. */
  client(key?: string, agentKey?: AgentKey): MayflyClient {
    return new MayflyClient({
      url: this.url,
      token: () => this.house.token(),
      ...(agentKey === undefined ? {} : { key: agentKey }),
      fetch: (input, init) => {
        const headers = new Headers(init?.headers);
        if (key !== undefined) headers.set('Idempotency-Key', key);
        return fetch(input, { ...init, headers, signal: AbortSignal.timeout(PATIENCE_MILLIS) });
      },
    });
  }

  async open(options: Partial<SignOptions> = {}): Promise<string> {
    const request = await this.house.sign({ phase: 'execute', entitlements: [INVOICES, PAYMENTS], ...options });
    return (await this.client().openTask(request)).task.id;
  }

  /** Issues, logs in with what it got, and keeps the session. */
  async hold(taskId: string, ask: { entitlement?: string; ttl_seconds?: number } = {}, key?: string): Promise<Held> {
    const issued = await this.patiently(() => this.client(key).issue(taskId, { entitlement: INVOICES, ...ask }));
    const url = new URL(String(issued.credential['url']));
    // What stands between broker and target is not in the agent's way.
    url.port = String(this.house.targetServer.port);
    const session = new pg.Client({ connectionString: url.href, connectionTimeoutMillis: 10_000 });
    session.on('error', () => {});
    await session.connect();
    const held = { grant: issued.grant, url: url.href, session };
    this.#held.push(held);
    await this.use(held);
    return held;
  }

  /** What the credential is for works, in the open session and with a new login. */
  async use({ grant, url, session }: Held): Promise<void> {
    const text = `SELECT count(*) FROM ${grant.entitlement === INVOICES ? 'billing.invoices' : 'billing.payments'}`;
    await session.query(text);
    const again = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
    await again.connect();
    try {
      await again.query(text);
    } finally {
      await again.end();
    }
  }

  /** Asks until there is an answer: what a patient agent does while the broker is away, or its key is in flight. */
  async patiently<T>(ask: () => Promise<T>): Promise<T> {
    const until = Date.now() + PATIENCE_MILLIS;
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        const unanswered = !(error instanceof ProblemError) || error.status >= 500 || error.code === 'key_in_flight';
        if (!unanswered || Date.now() > until) throw error;
        await new Promise((resolve) => setTimeout(resolve, 150));
      }
    }
  }

  /** Waits for a fact. */
  async until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const until = Date.now() + PATIENCE_MILLIS;
    while (!(await holds())) {
      if (Date.now() > until) throw new Error(`in vain waited until ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 120));
    }
  }

  /** Everything that was ever granted to these tasks is over by itself. */
  async untilEnded(...taskIds: string[]): Promise<void> {
    await this.until('all grants are contained', async () =>
      (await this.eye.fates(taskIds.map(plain))).every(({ state }) => state === 'revoked'),
    );
  }

  async isEnded(taskId: string): Promise<boolean> {
    const rows = await this.eye.store(`SELECT 1 FROM mayfly.tasks WHERE id = $1 AND state = 'active'`, [plain(taskId)]);
    return rows.length === 0;
  }

  /** The broker is dead from now on. */
  async kill(): Promise<void> {
    this.#downSince ??= Date.now();
    await this.house.broker.signal('SIGKILL');
  }

  async restart(falls: readonly Fall[] = []): Promise<RunningBroker> {
    this.house.broker = await this.house.restart(falls);
    if (falls.length === 0) this.back();
    return this.house.broker;
  }

  /** Some broker works from now on. */
  back(): void {
    if (this.#downSince !== undefined) this.awayMillis += Date.now() - this.#downSince;
    this.#downSince = undefined;
  }

  /** No broker can do anything from now on, though none was killed. */
  away(): void {
    this.#downSince ??= Date.now();
  }

  /** Ends what is still open, and waits until nothing is left; then agents hang up. Answers what was left before that. */
  async finish(): Promise<string[]> {
    const open = await this.eye.store<{ id: string }>(`SELECT id FROM mayfly.tasks WHERE state = 'active'`);
    for (const { id } of open) await this.patiently(() => this.client().complete(`task_${id}`)).catch(() => {});
    await this.until('nothing is left', async () => (await this.eye.leftBehind()).length === 0).catch(() => {});
    const left = await this.eye.leftBehind();
    for (const { session } of this.#held) await session.end().catch(() => {});
    return left;
  }
}

/** The id as it stands in the store. */
export function plain(id: string): string {
  return id.slice(id.indexOf('_') + 1);
}
