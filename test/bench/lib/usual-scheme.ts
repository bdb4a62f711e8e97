import { randomBytes } from 'node:crypto';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import pg from 'pg';

export interface UsualSettings {
  readonly redisUrl: string;
  /** A database with the table that `USUAL_TABLE` makes. */
  readonly storeUrl: string;
  /** As a superuser, who may do more than such a broker usually may. */
  readonly targetUrl: string;
  /** What a lease may read: a role of its own for that, as ours has. */
  readonly readers: string;
  readonly backoffMillis: number;
}

export interface Lease {
  readonly username: string;
  readonly password: string;
  /** Milliseconds since 1970. */
  readonly due: number;
}

export const USUAL_QUEUE = 'usual-leases';
export const USUAL_TABLE =
  'CREATE TABLE leases (id serial PRIMARY KEY, username text NOT NULL, expires_at timestamptz NOT NULL)';

/**
 * NOT OURS: the usual scheme for dynamic database credentials, written anew for comparison only. One delayed BullMQ job per lease
 * with three attempts; `REVOKE`, `DROP ROLE`, and the row is deleted. Role, row and job are made one after the other. Nothing sweeps
 * and nothing looks whether it worked. The worker has BullMQ's defaults.
 */
export class UsualScheme {
  readonly #settings: UsualSettings;
  readonly #store: pg.Pool;
  readonly #target: pg.Pool;
  readonly #queue: Queue;
  readonly #worker: Worker;

  constructor(settings: UsualSettings) {
    this.#settings = settings;
    this.#store = pool(settings.storeUrl);
    this.#target = pool(settings.targetUrl);
    this.#queue = new Queue(USUAL_QUEUE, { connection: redis(settings.redisUrl) });
    this.#worker = new Worker<{ id: number }>(USUAL_QUEUE, async ({ data }) => this.#revoke(data.id), {
      connection: redis(settings.redisUrl),
    });
    this.#queue.on('error', () => {});
    this.#worker.on('error', () => {});
  }

  async mint(ttlSeconds: number): Promise<Lease> {
    const username = `usual_${randomBytes(8).toString('hex')}`;
    const password = randomBytes(18).toString('hex');
    const due = Date.now() + ttlSeconds * 1000;
    await this.#target.query(
      `CREATE ROLE ${username} LOGIN PASSWORD '${password}' VALID UNTIL '${new Date(due).toISOString()}'; GRANT ${this.#settings.readers} TO ${username}`,
    );
    const { rows } = await this.#store.query<{ id: number }>(
      'INSERT INTO leases (username, expires_at) VALUES ($1, $2) RETURNING id',
      [username, new Date(due)],
    );
    const id = rows[0]?.id ?? 0;
    await this.#queue.add(
      'revoke',
      { id },
      {
        jobId: `lease-${id}`,
        delay: due - Date.now(),
        attempts: 3,
        backoff: { type: 'exponential', delay: this.#settings.backoffMillis },
        removeOnComplete: true,
        removeOnFail: true,
      },
    );
    return { username, password, due };
  }

  /** Ends all leases before their time: their jobs run now. */
  async endNow(): Promise<void> {
    for (const job of await this.#queue.getDelayed()) await job.promote();
  }

  async #revoke(id: number): Promise<void> {
    const { rows } = await this.#store.query<{ username: string }>('SELECT username FROM leases WHERE id = $1', [id]);
    const username = rows[0]?.username;
    if (username === undefined) return;
    await this.#target.query(`REVOKE ${this.#settings.readers} FROM ${username}; DROP ROLE ${username}`);
    await this.#store.query('DELETE FROM leases WHERE id = $1', [id]);
  }
}

export function redis(url: string): Redis {
  const client = new Redis(url, { maxRetriesPerRequest: null });
  client.on('error', () => {});
  return client;
}

function pool(connectionString: string): pg.Pool {
  const made = new pg.Pool({ connectionString, max: 8, connectionTimeoutMillis: 10_000, idleTimeoutMillis: 0 });
  made.on('error', () => {});
  made.on('connect', (client) => client.on('error', () => {}));
  return made;
}
