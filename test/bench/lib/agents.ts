import { setTimeout as pause } from 'node:timers/promises';
import pg from 'pg';
import type { Lease } from './usual-scheme.ts';

const POLL_MILLIS = 250;
const READ = 'SELECT count(*) FROM billing.invoices';
/** A statement that was begun goes on after its rights are gone. More rows than anybody fetches here. */
const OPEN_CURSOR =
  'BEGIN; DECLARE more CURSOR FOR SELECT i.id FROM billing.invoices i CROSS JOIN generate_series(1, 1000000); FETCH 1 FROM more';

export interface Place {
  readonly host: string;
  readonly port: number;
  readonly database: string;
}

/**
 * Somebody who holds a credential, and one session that it opened at once, and reads as long as it can: in that session, and when it
 * is refused there, by a new login.
 */
export class Agent {
  readonly lease: Lease;
  readonly #place: Place;
  readonly #cursor: boolean;
  #session: pg.Client | undefined;
  #reading: Promise<void> | undefined;
  #stopped = false;
  /** When it last began to read something that it was given. Milliseconds since 1970. */
  lastRead = 0;

  constructor(lease: Lease, place: Place, cursor: boolean) {
    this.lease = lease;
    this.#place = place;
    this.#cursor = cursor;
  }

  async start(): Promise<void> {
    this.#session = await this.#login();
    await this.#session.query(this.#cursor ? OPEN_CURSOR : READ);
    this.#reading = this.#readOn();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#reading;
    await this.#session?.end().catch(() => {});
  }

  async #readOn(): Promise<void> {
    while (!this.#stopped) {
      const began = Date.now();
      if (await this.#reads()) this.lastRead = began;
      await pause(POLL_MILLIS);
    }
  }

  async #reads(): Promise<boolean> {
    try {
      await this.#session?.query(this.#cursor ? 'FETCH 1 FROM more' : READ);
      return true;
    } catch {
      // By a new login, then.
    }
    let session: pg.Client | undefined;
    try {
      session = await this.#login();
      await session.query(READ);
      return true;
    } catch {
      return false;
    } finally {
      await session?.end().catch(() => {});
    }
  }

  async #login(): Promise<pg.Client> {
    const { username, password } = this.lease;
    const client = new pg.Client({ ...this.#place, user: username, password, query_timeout: 5_000 });
    client.on('error', () => {});
    await client.connect();
    return client;
  }
}
