import { type ConnectContext, ProviderError, within } from '../../src/provider.ts';
import { TargetClock } from './clock.ts';
import {
  assertOurs,
  type BrokerConnection,
  type Bounds,
  Connection,
  readStatus,
  type TargetStatus,
} from './connection.ts';
import { ConnectionPool } from './pool.ts';
import { Standing } from './relief.ts';
import type { ListedStandby, PostgresTarget } from './schema.ts';
import { Standby } from './standby.ts';
import { readReplicas, type Replica, unlisted } from './standby-match.ts';

/** Of the broker's connections, how many are for ending alone: a standing one, and two for refs that need their own. */
const revokingConnections = 3;
/** Dropping what an agent owns can take long: neither a fence nor a mint waits for it. */
const cleaningConnections = 1;
const issuingBounds: Bounds = { statement: 10_000, lock: 6_000 };
const revokingBounds: Bounds = { statement: 20_000, lock: 5_000 };
/**
 * A commit that waits for a synchronous standby is not seen by others meanwhile, and a query there can hold up replay
 * (remote_apply): a fence would wait for the very session that it is to end. Each listed standby is waited for afterwards.
 */
const waitForNoStandby = '-c synchronous_commit=local';
/** Milliseconds after which the target's clock is asked again, in the background. */
const clockAge = 30_000;

/** Milliseconds for which the allow-list is remembered. It only promises by it: `mint` in the target decides. */
const allowanceAge = 10_000;

type Endpoint = Pick<PostgresTarget, 'host' | 'port'>;

interface Allowance {
  readonly maxSeconds: number;
  /** As `server_version_num`: 180004. */
  readonly serverVersion: number;
  /** Standbys that stream from it and that the catalog does not name. */
  readonly unlisted: readonly Replica[];
  /** Seconds since the target's own schedule last ended what was past its end, or null: it never did. */
  readonly expireAge: number | null;
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
  readonly standbys: readonly Standby[];
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
    const listed = config.standbys ?? [];
    const fencing = listed.length === 0 ? revokingBounds : { ...revokingBounds, settings: waitForNoStandby };
    this.revoking = new ConnectionPool(revokingConnections, (signal) => this.#open(fencing, signal));
    this.standbys = listed.map((each) => new Standby(each, (signal) => this.#openStandby(each, signal)));
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
    const { replicas, ...seen } = await this.issuing.useTwice(signal, async ({ connection, status }) => {
      const [row] = await connection.query<{ max_seconds: number; expire_age: number | null }>(
        'reading the allow-list',
        'SELECT max_seconds, mayfly.expire_age() FROM mayfly.allowance($1)',
        [template],
        signal,
      );
      if (row === undefined) {
        const says = `the template ${template} is not on the allow-list of the target (mayfly target prepare)`;
        throw new ProviderError('misconfigured', says);
      }
      const streaming = await readReplicas(connection, signal);
      return {
        maxSeconds: row.max_seconds,
        serverVersion: status.server_version,
        expireAge: row.expire_age,
        replicas: streaming,
      };
    });
    const strangers = await unlisted(this.config.standbys ?? [], replicas);
    const allowance = { ...seen, unlisted: strangers, readAt: performance.now() };
    this.#allowances.set(template, allowance);
    return allowance;
  }

  /** The broker's login in another database of the cluster, for one piece of work. @throws ProviderError */
  async elsewhere<T>(database: string, signal: AbortSignal, work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#login(
      this.config,
      revokingBounds,
      AbortSignal.any([signal, this.#closing.signal]),
      database,
    );
    try {
      return await work(connection);
    } finally {
      await connection.close();
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#background;
    const pools = [this.issuing, this.revoking, this.cleaning, ...this.standbys.map(({ pool }) => pool)];
    await Promise.all([...pools, this.standing].map((each) => each.close()));
  }

  async #refresh(): Promise<void> {
    const signal = within(5000, this.#closing.signal);
    if (!signal.aborted) {
      await Promise.all([this.revoking.warm(signal), this.standing.stand(signal)]);
      if (this.clock.age > clockAge) {
        await this.issuing.useTwice(signal, async ({ connection }) => {
          await readStatus(connection, this.clock, signal);
        });
      }
      // One that is down says so when it is needed.
      await Promise.allSettled(this.standbys.map(({ pool }) => pool.warm(signal)));
    }
  }

  #open(bounds: Bounds, signal: AbortSignal): Promise<BrokerConnection> {
    return this.#openAt(this.config, bounds, signal, async (connection) => {
      const status = await readStatus(connection, this.clock, signal);
      assertOurs(status, this.context.installation);
      return status;
    });
  }

  /** A standby's clock is not that of the target; whether it is one in recovery is asked each time, not here. */
  #openStandby(at: ListedStandby, signal: AbortSignal): Promise<BrokerConnection> {
    return this.#openAt(at, revokingBounds, signal, async (connection) => {
      const status = await readStatus(connection, new TargetClock(), signal);
      assertOurs({ ...status, in_recovery: false }, this.context.installation);
      return status;
    });
  }

  /** The password is resolved for every login; when it is refused, once more: its file may just have been rotated. */
  async #openAt(
    at: Endpoint,
    bounds: Bounds,
    signal: AbortSignal,
    greet: (connection: Connection) => Promise<TargetStatus>,
  ): Promise<BrokerConnection> {
    let connection: Connection;
    try {
      connection = await this.#login(at, bounds, signal);
    } catch (error) {
      if (!(error instanceof ProviderError) || error.errorClass !== 'denied') {
        throw error;
      }
      connection = await this.#login(at, bounds, signal);
    }
    try {
      return { connection, status: await greet(connection) };
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  #login(at: Endpoint, bounds: Bounds, signal: AbortSignal, database = this.config.database): Promise<Connection> {
    const { host, port } = at;
    const { user } = this.config;
    const password = this.context.secret(this.config.password).reveal();
    return Connection.open(this.config, { host, port, database, user, password }, bounds, signal);
  }
}
