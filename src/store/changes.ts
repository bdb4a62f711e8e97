import pg from 'pg';
import type { TaskId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import { bounded } from '../domain/within.ts';

const CHANNEL = 'mayfly_changes';
const CATALOG = 'catalog';
const DRIFT = 'drift';
/** A notification holds at most 8000 bytes. */
const IDS_A_NOTIFICATION = 180;
/**
 * Changes of so many milliseconds travel together: waiters here are woken at once, those of other replicas a little later. Under load
 * there is a change in each of them, and then fewer statements carry more of it.
 */
const GATHER_MILLIS = 5;
const BUSY_GATHER_MILLIS = 25;
const RECONNECT_MILLIS = 500;
const CLOSE_MILLIS = 1_000;

export interface ChangesOptions {
  readonly url: Secret<string>;
  readonly onError: (error: unknown) => void;
  /** Another revision may be active now. */
  readonly onCatalog: () => void;
  /** Living grants are to be decided again. */
  readonly onDrift?: () => void;
}

/**
 * Tells every replica that something about a task changed. Sent after the commit, many tasks in one notification:
 * NOTIFY inside the transaction takes a lock that lets only one transaction commit at a time. What a crash swallows
 * between commit and notification, a waiter finds when it looks again (see `wait`).
 */
export class Changes {
  readonly #options: ChangesOptions;
  readonly #waiters = new Map<TaskId, Set<() => void>>();
  readonly #pending = new Set<TaskId>();
  #client: pg.Client | undefined;
  #gather: NodeJS.Timeout | undefined;
  /** When the other replicas were told last, by `performance.now()`. */
  #told = Number.NEGATIVE_INFINITY;
  #flushing = false;
  #closed = false;
  #reconnect: NodeJS.Timeout | undefined;

  constructor(options: ChangesOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const client = new pg.Client({
      connectionString: this.#options.url.reveal(),
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      query_timeout: 20_000,
      connectionTimeoutMillis: 5_000,
    });
    let own: number | undefined;
    client.on('notification', ({ payload = '', processId }) => {
      // Of our own changes the waiters here were told at once.
      if (payload === CATALOG) this.#options.onCatalog();
      else if (payload === DRIFT) this.#options.onDrift?.();
      else if (processId !== own) for (const id of payload.split(',')) this.#wake(id as TaskId);
    });
    client.on('error', (error) => {
      this.#options.onError(error);
      this.#lost(client);
    });
    client.on('end', () => this.#lost(client));
    try {
      await client.connect();
      own = (await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]?.pid;
      await client.query(`LISTEN ${CHANNEL}`);
    } catch (error) {
      client.end().catch(() => {});
      throw error;
    }
    if (this.#closed) return void client.end().catch(() => {});
    this.#client = client;
    // What was said while nobody listened is not said again.
    this.#options.onCatalog();
    this.#wakeAll();
  }

  /** Wakes the waiters here at once and those of other replicas soon. */
  publish(taskIds: Iterable<TaskId>): void {
    for (const id of taskIds) {
      this.#wake(id);
      this.#pending.add(id);
    }
    const since = performance.now() - this.#told;
    this.#gather ??= setTimeout(() => void this.#flush(), Math.max(GATHER_MILLIS, BUSY_GATHER_MILLIS - since));
  }

  async publishCatalog(): Promise<void> {
    await this.#client?.query('SELECT pg_notify($1, $2)', [CHANNEL, CATALOG]);
  }

  /** Never throws, never waits: what a replica does not hear it finds by itself. */
  publishDrift(): void {
    this.#client?.query('SELECT pg_notify($1, $2)', [CHANNEL, DRIFT]).catch(this.#options.onError);
  }

  /**
   * Waits until something about the task changes, at most `millis`. Resolves either way: look again, and do so at the
   * latest every few seconds, since a notification can be lost with its sender.
   */
  async wait(id: TaskId, millis: number, signal: AbortSignal): Promise<void> {
    await new Promise<void>((resolve) => {
      const waiters = this.#waiters.get(id) ?? new Set();
      this.#waiters.set(id, waiters);
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        waiters.delete(done);
        if (waiters.size === 0 && this.#waiters.get(id) === waiters) this.#waiters.delete(id);
        resolve();
      };
      const timer = setTimeout(done, millis);
      signal.addEventListener('abort', done, { once: true });
      waiters.add(done);
      if (signal.aborted) done();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#reconnect);
    clearTimeout(this.#gather);
    this.#wakeAll();
    // What was gathered and not told yet.
    await bounded(CLOSE_MILLIS, [], async () => await this.#flush()).catch(() => {});
    await this.#client?.end().catch(() => {});
  }

  async #flush(): Promise<void> {
    this.#gather = undefined;
    if (this.#flushing) return;
    this.#flushing = true;
    try {
      while (this.#pending.size > 0 && this.#client !== undefined) {
        this.#told = performance.now();
        const ids = [...this.#pending].slice(0, IDS_A_NOTIFICATION);
        for (const id of ids) this.#pending.delete(id);
        await this.#client.query({
          name: 'notify',
          text: 'SELECT pg_notify($1, $2)',
          values: [CHANNEL, ids.join(',')],
        });
      }
    } catch (error) {
      this.#options.onError(error);
      // A time-out of ours leaves the connection waiting for its answer: it is of no more use.
      if (this.#client !== undefined) this.#lost(this.#client);
    } finally {
      this.#flushing = false;
    }
  }

  #wake(id: TaskId): void {
    for (const wake of [...(this.#waiters.get(id) ?? [])]) wake();
  }

  #wakeAll(): void {
    for (const id of [...this.#waiters.keys()]) this.#wake(id);
  }

  #lost(client: pg.Client): void {
    if (this.#closed || this.#client !== client) return;
    this.#client = undefined;
    client.end().catch(() => {});
    this.#reconnectLater();
  }

  #reconnectLater(): void {
    clearTimeout(this.#reconnect);
    this.#reconnect = setTimeout(() => {
      this.start().catch((error: unknown) => {
        this.#options.onError(error);
        if (!this.#closed) this.#reconnectLater();
      });
    }, RECONNECT_MILLIS);
  }
}
