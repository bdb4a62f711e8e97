import { pause } from './abort.ts';
import type { Connection } from './connection.ts';
import { OutOfSharedMemory } from './errors.ts';
import type { Target } from './target.ts';

const tries = 40;
/** Milliseconds for the locks of an ended session to go. */
const interval = 25;

/**
 * One connection that stands in an open transaction and holds the locks that ending sessions needs (definer-relief.sql):
 * what still works when an agent has filled the target's lock table. It has no snapshot and no number of its own there.
 */
export class Standing {
  readonly #open: (signal: AbortSignal) => Promise<Connection>;
  readonly #installation: string;
  #connection: Connection | undefined;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(installation: string, open: (signal: AbortSignal) => Promise<Connection>) {
    this.#installation = installation;
    this.#open = open;
  }

  /** Sees to it that it stands. @throws ProviderError */
  async stand(signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      if (this.#connection?.alive !== true) {
        await this.#begin(await this.#open(signal), signal);
      }
    });
  }

  /** Ends the sessions of these roles, and the three of ours that hold most locks. @throws ProviderError */
  async relieve(oids: readonly number[], signal: AbortSignal): Promise<void> {
    await this.#alone(async () => {
      const connection = this.#connection?.alive === true ? this.#connection : await this.#open(signal);
      this.#connection = undefined;
      try {
        await this.#sweep(connection, oids, true, signal);
        await connection.query('standing by', 'COMMIT', [], signal);
      } catch (error) {
        connection.destroy();
        throw error;
      }
      // Stands again if there is room already; else the next call opens another one.
      await this.#begin(connection, signal).catch(() => {});
    });
  }

  async close(): Promise<void> {
    await this.#alone(async () => this.#connection?.close()).catch(() => {});
  }

  async #begin(connection: Connection, signal: AbortSignal): Promise<void> {
    try {
      await connection.query(
        'standing by',
        `SELECT set_config(name, '0', false) FROM pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')`,
        [],
        signal,
      );
      // Once before it is needed: what it is made of is then known to the session.
      await this.#sweep(connection, [], false, signal);
      await connection.query('standing by', 'BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY', [], signal);
      await connection.query('standing by', 'SELECT mayfly.stand()', [], signal);
      // Says to a DBA why it idles; and takes the place of the portal before, whose snapshot would hold back vacuum.
      await connection.query('standing by', "SET LOCAL application_name = 'mayfly, standing by'", [], signal);
      this.#connection = connection;
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  async #sweep(connection: Connection, oids: readonly number[], really: boolean, signal: AbortSignal): Promise<void> {
    await connection.query(
      'making room',
      'SELECT mayfly.relieve($1, $2::oid[], $3)',
      [this.#installation, oids, really],
      signal,
    );
  }

  /** One after another: it is one connection. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work, work);
    this.#turn = mine.catch(() => {});
    return mine;
  }
}

/**
 * Does the work; when the target's lock table is full, makes room and does it again.
 * @throws What the work throws at the end.
 */
export async function relieved<T>(
  target: Target,
  oids: readonly number[],
  signal: AbortSignal,
  work: () => Promise<T>,
): Promise<T> {
  for (let tried = 1; ; tried += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof OutOfSharedMemory) || tried === tries) {
        throw error;
      }
      try {
        await target.standing.relieve(oids, signal);
      } catch (failed) {
        // Some may have been told to end before, and be about to let go.
        if (!(failed instanceof OutOfSharedMemory)) {
          throw failed;
        }
      }
      await pause(interval, signal);
    }
  }
}
