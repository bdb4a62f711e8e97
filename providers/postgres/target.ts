import { type ConnectContext, ProviderError } from '../../src/provider.ts';
import { TargetClock } from './clock.ts';
import { assertOurs, type BrokerConnection, type Bounds, Connection, readStatus } from './connection.ts';
import { ConnectionPool } from './pool.ts';
import { Standing } from './relief.ts';
import type { PostgresTarget } from './schema.ts';

/** Of the broker's connections, how many are for ending alone: a standing one, and two for refs that need their own. */
const revokingConnections = 3;
/** Dropping what an agent owns can take long: neither a fence nor a mint waits for it. */
const cleaningConnections = 1;
const issuingBounds: Bounds = { statement: 10_000, lock: 6_000 };
const revokingBounds: Bounds = { statement: 20_000, lock: 5_000 };
/** Milliseconds after which the target's clock is asked again, in the background. */
const clockAge = 30_000;

/** Milliseconds for which the allow-list is remembered. It only promises by it: `mint` in the target decides. */
const allowanceAge = 10_000;

interface Allowance {
  readonly maxSeconds: number;
  /** As `server_version_num`: 180004. */
  readonly serverVersion: number;
  readonly readAt: number;
}

/** One target as the parts of this provider share it. Opening it touches no network. */
export class Target {
  readonly config: PostgresTarget;
  readonly context: ConnectContext;
  readonly clock = new TargetClock();
  /** Issuing never waits for revoking, nor the other way round: each has connections of its own. */
  readonly issuing: ConnectionPool;
  readonly revoking: ConnectionPool;
  readonly cleaning: ConnectionPool;
  /** One more, for when the target's lock table is full. */
  readonly standing: Standing;
  readonly #closing = new AbortController();
  readonly #allowances = new Map<string, Allowance>();
  #background: Promise<void> | undefined;

  constructor(config: PostgresTarget, context: ConnectContext) {
    this.config = config;
    this.context = context;
    this.issuing = new ConnectionPool(config.max_connections - revokingConnections - cleaningConnections, (signal) =>
      this.#open(issuingBounds, signal),
    );
    this.revoking = new ConnectionPool(revokingConnections, (signal) => this.#open(revokingBounds, signal));
    this.cleaning = new ConnectionPool(cleaningConnections, (signal) => this.#open(revokingBounds, signal));
    this.standing = new Standing(context.installation, async (signal) => {
      const { connection } = await this.#open(revokingBounds, AbortSignal.any([signal, this.#closing.signal]));
      return connection;
    });
  }

  /**
   * After a mint: sees to it that a connection for revoking stands, and that the target's clock is known as it is now.
   * Never fails and is not waited for.
   */
  refreshInBackground(): void {
    this.#background ??= this.#refresh()
      .catch((error: unknown) => {
        const says = error instanceof ProviderError ? error.message : 'failed';
        this.context.log({ target: this.context.target, says }, 'target could not be refreshed in the background');
      })
      .finally(() => {
        this.#background = undefined;
      });
  }

  /** What the target allows for a template. @throws ProviderError `misconfigured` when it is not on the allow-list. */
  async allowance(template: string, signal: AbortSignal): Promise<Allowance> {
    const known = this.#allowances.get(template);
    if (known !== undefined && performance.now() - known.readAt < allowanceAge) return known;
    const allowance = await this.issuing.useTwice(signal, async ({ connection, status }) => {
      const [row] = await connection.query<{ max_seconds: number }>(
        'reading the allow-list',
        'SELECT max_seconds FROM mayfly.allowance($1)',
        [template],
        signal,
      );
      if (row === undefined) {
        const says = `the template ${template} is not on the allow-list of the target (mayfly target prepare)`;
        throw new ProviderError('misconfigured', says);
      }
      return { maxSeconds: row.max_seconds, serverVersion: status.server_version, readAt: performance.now() };
    });
    this.#allowances.set(template, allowance);
    return allowance;
  }

  /** The broker's login in another database of the cluster, for one piece of work. @throws ProviderError */
  async elsewhere<T>(database: string, signal: AbortSignal, work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#login(revokingBounds, AbortSignal.any([signal, this.#closing.signal]), database);
    try {
      return await work(connection);
    } finally {
      await connection.close();
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#background;
    await Promise.all([this.issuing.close(), this.revoking.close(), this.cleaning.close(), this.standing.close()]);
  }

  async #refresh(): Promise<void> {
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(5000)]);
    if (!signal.aborted) {
      await Promise.all([this.revoking.warm(signal), this.standing.stand(signal)]);
      if (this.clock.age > clockAge) {
        await this.issuing.useTwice(signal, async ({ connection }) => {
          await readStatus(connection, this.clock, signal);
        });
      }
    }
  }

  /** The password is resolved for every login; when it is refused, once more: its file may just have been rotated. */
  async #open(bounds: Bounds, signal: AbortSignal): Promise<BrokerConnection> {
    let connection: Connection;
    try {
      connection = await this.#login(bounds, signal);
    } catch (error) {
      if (!(error instanceof ProviderError) || error.errorClass !== 'denied') {
        throw error;
      }
      connection = await this.#login(bounds, signal);
    }
    try {
      const status = await readStatus(connection, this.clock, signal);
      assertOurs(status, this.context.installation);
      return { connection, status };
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  #login(bounds: Bounds, signal: AbortSignal, database = this.config.database): Promise<Connection> {
    const { host, port, user } = this.config;
    const password = this.context.secret(this.config.password).reveal();
    return Connection.open(this.config, { host, port, database, user, password }, bounds, signal);
  }
}
