import { retryDelaySeconds } from '../domain/revocation.ts';
import type { Secret } from '../domain/secret.ts';
import { within } from '../domain/within.ts';
import type { Database } from '../store/database.ts';
import { deferNotice, dropOldNotices, type Notice, removeNotice, takeNotices } from '../store/notices.ts';
import { webhookMessage } from './webhook-message.ts';

const POLL_MILLIS = 1_000;
const SEND_MILLIS = 10_000;
const LEASE_SECONDS = 60;
/** A receiver that is down meets so many a second at most. */
const BATCH = 10;
const KEPT_SECONDS = 86_400;
const DROP_MILLIS = 60_000;

export interface WebhooksOptions {
  readonly db: Database;
  /** Undefined: nobody is told, and notices are let go when they are old. */
  readonly endpoint: { readonly url: string; readonly secret: Secret<string> } | undefined;
  readonly observer: { notified(outcome: 'taken' | 'failed' | 'dropped'): void };
  readonly random: () => number;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/**
 * Tells a webhook of what operators must hear: at least once each, from the store, for a day. A loop of its own: revocation never
 * waits for it. Every replica runs one; what another has in hand is skipped.
 */
export class Webhooks {
  readonly #options: WebhooksOptions;
  readonly #stop = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> = Promise.resolve();
  #droppedAt = Number.NEGATIVE_INFINITY;

  constructor(options: WebhooksOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running = this.#round()
      .catch((error: unknown) => this.#options.log({ error }, 'webhooks can not be read or recorded now'))
      .finally(() => {
        if (!this.#stop.signal.aborted) this.#timer = setTimeout(() => this.start(), POLL_MILLIS);
      });
  }

  /** What is on its way is cut off, and sent again by another. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#running;
  }

  async #round(): Promise<void> {
    const { db, endpoint } = this.#options;
    await this.#dropOld();
    if (endpoint === undefined) return;
    const notices = await takeNotices(db, LEASE_SECONDS, BATCH);
    await Promise.all(notices.map((notice) => this.#tell(notice, endpoint)));
  }

  async #tell(notice: Notice, { url, secret }: NonNullable<WebhooksOptions['endpoint']>): Promise<void> {
    const { db, observer, random, log } = this.#options;
    const failure = await this.#send(url, notice, secret);
    if (failure === undefined) {
      observer.notified('taken');
      return await removeNotice(db, notice.eventId);
    }
    observer.notified('failed');
    log({ event_id: notice.eventId, type: notice.type, attempts: notice.attempts, failure }, 'a webhook was not taken');
    await deferNotice(db, notice.eventId, retryDelaySeconds(notice.attempts, random()));
  }

  /** Why it was not taken. */
  async #send(url: string, notice: Notice, secret: Secret<string>): Promise<string | undefined> {
    const { headers, body } = webhookMessage(notice, { format: 'standard', secrets: [secret], now: new Date() });
    try {
      const response = await fetch(url, {
        method: 'POST',
        headers,
        body,
        // Where it leads, nobody has said that we may go.
        redirect: 'manual',
        signal: within(SEND_MILLIS, this.#stop.signal),
      });
      await response.body?.cancel();
      return response.ok ? undefined : `HTTP ${response.status}`;
    } catch (error) {
      return error instanceof Error ? error.name : 'failed';
    }
  }

  async #dropOld(): Promise<void> {
    if (performance.now() - this.#droppedAt < DROP_MILLIS) return;
    const dropped = await dropOldNotices(this.#options.db, KEPT_SECONDS);
    this.#droppedAt = performance.now();
    if (this.#options.endpoint !== undefined)
      for (let n = 0; n < dropped; n++) this.#options.observer.notified('dropped');
  }
}
