import { createPostgresBackend, type JobsOptions, Queue, Worker, type WorkerOptions } from 'bullmq';

/** After a first connection that failed. */
const AGAIN_MILLIS = 1_000;

export interface PostgresBellOptions {
  readonly queue: string;
  readonly url: string;
  readonly worker: Omit<WorkerOptions, 'connection'>;
  readonly ring: (id: string | undefined) => void;
  readonly failed: (error: Error) => void;
}

/**
 * One target's queue and the worker that listens to it, in the store. One listening connection per process, and one or two more
 * while alarms are set.
 *
 * BullMQ (6.7) keeps a first connection that failed for ever: its worker would then ask without a pause, and this process come to
 * nothing else, not even to its end. So both are made anew until they have connected once, and only then does the worker begin.
 */
export class PostgresBell {
  readonly #options: PostgresBellOptions;
  #joined: Joined;
  #again: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: PostgresBellOptions) {
    this.#options = options;
    this.#joined = join(options);
    void this.#begin();
  }

  // Not addBulk: on Postgres that makes temporary tables, for which the runtime login has no right and the catalog no need.
  async set(jobs: readonly JobsOptions[]): Promise<void> {
    await Promise.all(jobs.map((opts) => this.#joined.queue.add('due', {}, opts)));
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#again);
    await part(this.#joined);
  }

  async #begin(): Promise<void> {
    const joined = this.#joined;
    const { queue, worker } = joined;
    try {
      await Promise.all([queue.waitUntilReady(), worker.waitUntilReady()]);
      await worker.run();
    } catch (error) {
      this.#options.failed(error instanceof Error ? error : new Error(String(error)));
      if (this.#closed) return;
      this.#again = setTimeout(() => {
        this.#joined = join(this.#options);
        void this.#begin();
      }, AGAIN_MILLIS);
      await part(joined);
    }
  }
}

type Joined = ReturnType<typeof join>;

function join({ queue: name, url, worker: workerOptions, ring, failed }: PostgresBellOptions) {
  const connection = {
    connectionString: url,
    max: 1,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    query_timeout: 20_000,
  };
  const queue = new Queue(name, { connection }, createPostgresBackend);
  const worker = new Worker(
    name,
    async ({ id }) => ring(id),
    { connection, ...workerOptions, autorun: false },
    createPostgresBackend,
  );
  queue.on('error', failed);
  worker.on('error', failed);
  return { queue, worker };
}

async function part({ queue, worker }: Joined): Promise<void> {
  await Promise.allSettled([worker.close(true), queue.close()]);
}
