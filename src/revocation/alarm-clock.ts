import { type JobsOptions, Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import type { Secret } from '../domain/secret.ts';
import { step } from '../domain/step.ts';
import { bounded } from '../domain/within.ts';
import { PostgresBell } from './postgres-bell.ts';

/** Where the alarms stand. Neither holds truth: what is lost there, the sweeper finds in the store. */
export type AlarmBackend =
  | { readonly kind: 'postgres'; readonly url: Secret<string> }
  | { readonly kind: 'redis'; readonly url: Secret<string> };

export interface AlarmClockOptions {
  readonly backend: AlarmBackend;
  readonly ring: (target: string) => void;
  /** How late an alarm rang, in seconds by this machine's clock. */
  readonly rang: (backend: AlarmBackend['kind'], lagSeconds: number) => void;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/**
 * Deadlines further away wait in the store, not in the queue; the sweeper sets their alarms when they come near. Seconds. Most
 * grants end before their deadline, so that most alarms are never set: at 600 s each mint cost a job of its own.
 */
export const HORIZON_SECONDS = 60;
/** Obligations due within this many milliseconds share one ring. */
export const BUCKET_MILLIS = 10;
/** A timer may ring a millisecond early; what is woken then finds nothing due. */
const NOT_EARLY_MILLIS = 2;
/**
 * The alarm in the queue rings so long after the moment, or up to twice as long: it is for the others, in case the process that
 * set it is dead by then. All moments that round to the same share it.
 */
const STAND_IN_MILLIS = 250;
/** New alarms are collected for this long and sent together: one by one would cost the issuing path a write each. */
const GATHER_MILLIS = 10;
const TROUBLE = 'the queue of alarms is in trouble; the sweeper stands in';

const WORKER_OPTIONS = {
  concurrency: 1,
  // A ring is over in a millisecond. A killed worker's job comes back after this; the sweeper is sooner.
  lockDuration: 5_000,
  stalledInterval: 5_000,
  maxStalledCount: 1,
};

/** One target's queue and the worker that listens to it. */
interface Bell {
  set(jobs: JobsOptions[]): Promise<unknown>;
  close(): Promise<unknown>;
}

/**
 * When a moment comes, this process rings by a timer of its own, to the hundredth of a second. For the case that it is dead by
 * then, BullMQ wakes another one shortly after: one queue per target, one job for all moments of a quarter of a second, no data in
 * it, never retried. Either wakes whoever claims from the store; neither is the work.
 */
export class AlarmClock {
  readonly #options: AlarmClockOptions;
  readonly #bells = new Map<string, Bell>();
  readonly #gathered = new Map<string, Set<number>>();
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #redis: Redis | undefined;
  #flush: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(options: AlarmClockOptions) {
    this.#options = options;
    if (options.backend.kind === 'redis') {
      // A dead Redis must not hold up whoever sets an alarm.
      this.#redis = new Redis(options.backend.url.reveal(), { enableOfflineQueue: false, maxRetriesPerRequest: 1 });
      this.#redis.on('error', (error) => options.log({ error }, TROUBLE));
    }
  }

  /** Begins to ring for a target. Said again, nothing happens. */
  watch(target: string): void {
    if (!this.#closed) this.#bell(target);
  }

  /** Rings here in so many milliseconds, and for another process soon after. */
  in(target: string, millis: number): void {
    if (this.#closed || millis > HORIZON_SECONDS * 1000) return;
    // Not by the machine's clock: one that is set back or on makes another moment of the same name.
    const now = performance.now();
    const moment = roundUp(now + Math.max(0, millis) + NOT_EARLY_MILLIS, BUCKET_MILLIS);
    const key = `${moment} ${target}`;
    if (!this.#timers.has(key))
      this.#timers.set(
        key,
        setTimeout(() => this.#ringHere(key, target), moment - now),
      );
    this.standIn(target, millis);
  }

  /** For another process, in case this one dies: it rings there soon after so many milliseconds. */
  standIn(target: string, millis = 0): void {
    if (this.#closed) return;
    const moment = roundUp(Date.now() + Math.max(0, millis) + STAND_IN_MILLIS, STAND_IN_MILLIS);
    const moments = this.#gathered.get(target) ?? new Set();
    this.#gathered.set(target, moments.add(moment));
    this.#flush ??= setTimeout(() => this.#send(), GATHER_MILLIS);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#flush);
    for (const timer of this.#timers.values()) clearTimeout(timer);
    const bells = [...this.#bells.values()];
    // close() has no time-out of its own; nothing here is worth waiting for.
    await bounded(2_000, [], () => Promise.allSettled(bells.map((bell) => bell.close()))).catch(() => {});
    this.#redis?.disconnect();
  }

  #ringHere(key: string, target: string): void {
    this.#timers.delete(key);
    this.#options.ring(target);
  }

  #send(): void {
    this.#flush = undefined;
    for (const [target, moments] of this.#gathered) {
      const now = Date.now();
      // Two alarms for one moment are one. An id must not be all digits, a delay must be whole.
      const jobs = [...moments].map((moment) => ({
        jobId: `at-${moment}`,
        delay: Math.max(0, Math.ceil(moment - now)),
        removeOnComplete: true,
        removeOnFail: true,
      }));
      step('set-alarms.before');
      this.#bell(target)
        .set(jobs)
        .then(() => step('set-alarms.after'))
        .catch((error: unknown) =>
          this.#options.log({ target, error }, 'alarms could not be set; the sweeper stands in'),
        );
    }
    this.#gathered.clear();
  }

  #bell(target: string): Bell {
    const known = this.#bells.get(target);
    if (known !== undefined) return known;
    const bell = this.#redis === undefined ? this.#postgresBell(target) : redisBell(this.#redis, target, this.#options);
    this.#bells.set(target, bell);
    return bell;
  }

  #postgresBell(target: string): Bell {
    return new PostgresBell({
      queue: queueName(target),
      url: this.#options.backend.url.reveal(),
      worker: WORKER_OPTIONS,
      ring: (id) => ringing(this.#options, target, id),
      failed: (error) => this.#options.log({ target, error }, TROUBLE),
    });
  }
}

function redisBell(redis: Redis, target: string, options: AlarmClockOptions): Bell {
  const listening = redis.duplicate({ enableOfflineQueue: true, maxRetriesPerRequest: null });
  const failed = (error: Error) => options.log({ target, error }, TROUBLE);
  listening.on('error', failed);
  const queue = new Queue(queueName(target), { connection: redis });
  const worker = new Worker(queueName(target), async ({ id }) => ringing(options, target, id), {
    connection: listening,
    ...WORKER_OPTIONS,
  });
  queue.on('error', failed);
  worker.on('error', failed);
  return {
    set: (jobs) => Promise.all(jobs.map((opts) => queue.add('due', {}, opts))),
    close: async () => {
      await Promise.allSettled([worker.close(true), queue.close()]);
      listening.disconnect();
    },
  };
}

/** The id of an alarm says for when it was set. */
function ringing({ ring, rang, backend }: AlarmClockOptions, target: string, id: string | undefined): void {
  ring(target);
  const moment = Number(/^at-(\d+)$/.exec(id ?? '')?.[1]);
  if (Number.isSafeInteger(moment)) rang(backend.kind, (Date.now() - moment) / 1000);
}

function roundUp(millis: number, to: number): number {
  return Math.ceil(millis / to) * to;
}

function queueName(target: string): string {
  return `mayfly-${target}`;
}
