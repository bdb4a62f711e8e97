import { Socket } from 'node:net';
import pg from 'pg';
import { z } from 'zod';
import { ProviderError } from '../../src/provider.ts';
import { abortable } from './abort.ts';
import type { TargetClock } from './clock.ts';
import { classify, givenUp, poolerBetween } from './errors.ts';
import type { PostgresTarget } from './schema.ts';
import { tlsOptions } from './tls.ts';

/** The definer functions that this provider was written for. */
const definerVersion = 3;

const statusSchema = z.object({
  version: z.int(),
  installation: z.string().nullable(),
  epoch: z.int().nullable(),
  system_identifier: z.string(),
  server_version: z.int(),
  in_recovery: z.boolean(),
  clock_ms: z.number(),
});
export type TargetStatus = Readonly<z.infer<typeof statusSchema>>;

export interface Login {
  readonly user: string;
  readonly password: string;
  readonly database: string;
  readonly host: string;
  readonly port: number;
}

/** Server-side bounds of one kind of work, in milliseconds: also for a client that no longer listens. */
export interface Bounds {
  readonly statement: number;
  readonly lock: number;
  /** Further settings of the session, as `-c name=value`. */
  readonly settings?: string;
}

/**
 * One connection of a login. Its socket is ours, so that an aborted call ends at once even when the target hangs in
 * the middle of a statement: the connection is then gone, and nothing waits for it.
 */
export class Connection {
  readonly #client: pg.Client;
  readonly #socket: Socket;
  readonly #plain: boolean;
  #alive = true;

  private constructor(client: pg.Client, socket: Socket, plain: boolean) {
    this.#client = client;
    this.#socket = socket;
    this.#plain = plain;
    const dead = (): void => {
      this.#alive = false;
    };
    client.on('error', dead).on('end', dead);
  }

  /**
   * @param bounds Null for a connection as any client makes it: without settings of its own and named statements, which
   *   a pooler would refuse.
   * @throws ProviderError Classified; never with what the driver said.
   */
  static async open(
    target: PostgresTarget,
    login: Login,
    bounds: Bounds | null,
    signal: AbortSignal,
  ): Promise<Connection> {
    const doing = `connecting to ${login.host}:${login.port}`;
    const socket = new Socket();
    // Every member that has a PG* environment variable behind it is set: those of the broker are for its own store.
    const client = new pg.Client({
      ...login,
      stream: () => socket,
      ssl: tlsOptions(target, login.host),
      application_name: 'mayfly',
      ...(bounds === null
        ? {}
        : {
            options: `-c default_transaction_isolation=read\\ committed -c default_transaction_read_only=off ${bounds.settings ?? ''}`,
            statement_timeout: bounds.statement,
            lock_timeout: bounds.lock,
            idle_in_transaction_session_timeout: 10_000,
          }),
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      client_encoding: 'UTF8',
    });
    const connection = new Connection(client, socket, bounds === null);
    try {
      await abortable(
        client.connect(),
        signal,
        () => connection.destroy(),
        () => givenUp(doing),
      );
      return connection;
    } catch (error) {
      connection.destroy();
      throw classify(error, doing);
    }
  }

  get alive(): boolean {
    return this.#alive;
  }

  /**
   * One statement, its own transaction.
   * @param doing For messages: `minting`, `fencing`.
   * @throws ProviderError
   */
  async query<Row extends pg.QueryResultRow>(
    doing: string,
    text: string,
    values: readonly unknown[],
    signal: AbortSignal,
  ): Promise<readonly Row[]> {
    try {
      const named = this.#plain ? {} : { name: statementName(text) };
      const work = this.#client.query<Row>({ ...named, text, values: [...values] });
      const { rows } = await abortable(
        work,
        signal,
        () => this.destroy(),
        () => givenUp(doing),
      );
      return rows;
    } catch (error) {
      // A fatal error ends the session a moment later; it must not be handed out again in between.
      // One that works for a tenure that is over (MF001) is of no more use either.
      if (!(error instanceof pg.DatabaseError) || error.severity === 'FATAL' || error.code === 'MF001') {
        this.destroy();
      }
      throw classify(error, doing);
    }
  }

  /**
   * Whether the server process that answers is the one that took the login. A pooler gives its clients a number of its
   * own to cancel by, since their server may be another one each time.
   * @param pid What `pg_backend_pid()` says here.
   */
  isDirect(pid: number): boolean {
    const told: unknown = Reflect.get(this.#client, 'processID');
    return told === pid;
  }

  /** At once, without a farewell. */
  destroy(): void {
    this.#alive = false;
    this.#socket.destroy();
  }

  async close(): Promise<void> {
    if (this.#alive) {
      this.#alive = false;
      const patience = AbortSignal.timeout(1000);
      await abortable(
        this.#client.end(),
        patience,
        () => this.#socket.destroy(),
        () => givenUp('closing'),
      ).catch(() => {});
    }
    this.#socket.destroy();
  }
}

const names = new Map<string, string>();

/** Each text is planned once a connection. There are a dozen of them, none with values in it. */
function statementName(text: string): string {
  const name = names.get(text) ?? `mayfly_${names.size + 1}`;
  names.set(text, name);
  return name;
}

/** A connection of the broker's own login, and what it found at the other end. */
export interface BrokerConnection {
  readonly connection: Connection;
  readonly status: TargetStatus;
}

/** Asks the target who it is and what time it is. @throws ProviderError */
export async function readStatus(
  connection: Connection,
  clock: TargetClock,
  signal: AbortSignal,
): Promise<TargetStatus> {
  const sent = Date.now();
  const [row] = await connection.query(
    'reading the target',
    'SELECT mayfly.status() AS status, pg_backend_pid() AS pid',
    [],
    signal,
  );
  const received = Date.now();
  if (!connection.isDirect(Number(row?.['pid']))) throw poolerBetween();
  const parsed = statusSchema.safeParse(row?.['status']);
  if (!parsed.success) {
    throw new ProviderError('misconfigured', 'the target is prepared for another version (mayfly target prepare)');
  }
  clock.learn(sent, received, parsed.data.clock_ms);
  return parsed.data;
}

/**
 * That this is a target this broker may change.
 * @throws ProviderError `misconfigured`
 */
export function assertOurs(status: TargetStatus, installation: string): void {
  if (status.in_recovery) {
    throw new ProviderError('misconfigured', 'the address leads to a standby, not to the primary');
  }
  if (status.version < definerVersion) {
    throw new ProviderError('misconfigured', 'the target is prepared for an older version (mayfly target prepare)');
  }
  if (status.installation !== installation) {
    throw new ProviderError('misconfigured', 'the target belongs to another installation (mayfly target adopt)');
  }
}
