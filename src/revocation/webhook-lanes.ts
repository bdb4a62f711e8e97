import { webhookUrlFault } from '../catalog/webhooks.ts';
import { webhookOwner } from '../catalog/references.ts';
import type { Webhook } from '../catalog/types.ts';
import { Secret } from '../domain/secret.ts';
import { step } from '../domain/step.ts';
import { within } from '../domain/within.ts';
import type { Database } from '../store/database.ts';
import {
  forgetDeliveries,
  giveUpDeliveries,
  markDelivered,
  markNotTaken,
  takeDeliveries,
} from '../store/deliveries.ts';
import type { Notice } from '../store/notices.ts';
import { disableWebhook, webhooksToTell } from '../store/webhooks.ts';
import { reachable } from './webhook-address.ts';
import { webhookMessage, webhookSecretPattern } from './webhook-message.ts';
import { type Sent, sendWebhook } from './webhook-send.ts';

const POLL_MILLIS = 1_000;
const SEND_MILLIS = 10_000;
/** Of whoever died with a delivery in hand. Much longer than a send. */
const LEASE_SECONDS = 30;
/** Told at once to one that takes them; one that failed is asked with one. Slack takes one a second. */
const BATCH = 8;
const SLACK_BATCH = 1;
const TIDY_MILLIS = 60_000;
/** Rows in one statement, which locks them. */
const TIDY_BATCH = 1_000;

const TRIED_SECONDS = 3 * 86_400;
const DELIVERED_KEPT_SECONDS = 86_400;
const GIVEN_UP_KEPT_SECONDS = 30 * 86_400;

/** 5 s, 10 s, … each half to whole; one delivery at most an hour apart, a webhook that fails at most five minutes. */
const FIRST_SECONDS = 5;
const LONGEST_RETRY_SECONDS = 3_600;
const LONGEST_HOLD_SECONDS = 300;

export interface WebhookLanesOptions {
  readonly db: Database;
  /** Those of the active catalog; none before there is one. */
  readonly webhooks: () => readonly Webhook[];
  readonly secret: (owner: string, reference: string) => Secret<string>;
  /** Our own name, for links. */
  readonly url: string;
  readonly observer: { delivered(webhook: string, outcome: 'delivered' | 'failed' | 'given_up', count: number): void };
  readonly random: () => number;
  readonly log: (event: Readonly<Record<string, unknown>>, message: string) => void;
}

/**
 * Tells each webhook of the catalog what the store holds for it, at least once, for three days: a lane each, so that a sick one holds
 * up no other, and nothing else of the broker. Every replica runs them; what another has in hand is skipped.
 */
export class WebhookLanes {
  readonly #options: WebhookLanesOptions;
  readonly #stop = new AbortController();
  readonly #lanes = new Map<string, Promise<void>>();
  #timer: NodeJS.Timeout | undefined;
  #round: Promise<void> = Promise.resolve();
  #tidiedAt = Number.NEGATIVE_INFINITY;

  constructor(options: WebhookLanesOptions) {
    this.#options = options;
  }

  start(): void {
    this.#round = this.#look()
      .catch((error: unknown) => this.#options.log({ error }, 'webhooks can not be read now'))
      .finally(() => {
        if (!this.#stop.signal.aborted) this.#timer = setTimeout(() => this.start(), POLL_MILLIS);
      });
  }

  /** What is on its way is cut off, and sent again by another. */
  async stop(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#round;
    await Promise.all(this.#lanes.values());
  }

  async #look(): Promise<void> {
    const { db, webhooks } = this.#options;
    await this.#tidy().catch((error: unknown) =>
      this.#options.log({ error }, 'old deliveries of webhooks can not be cleared now'),
    );
    const free = new Map(webhooks().flatMap((one) => (this.#lanes.has(one.name) ? [] : [[one.name, one] as const])));
    if (free.size === 0) return;
    for (const [name, failures] of await webhooksToTell(db, [...free.keys()])) {
      const webhook = free.get(name);
      if (webhook === undefined || this.#stop.signal.aborted) continue;
      const lane = this.#run(webhook, failures)
        .catch((error: unknown) => this.#options.log({ webhook: name, error }, 'a webhook can not be told now'))
        .finally(() => this.#lanes.delete(name));
      this.#lanes.set(name, lane);
    }
  }

  async #run(webhook: Webhook, failures: number): Promise<void> {
    const limit = failures > 0 || webhook.format === 'slack' ? SLACK_BATCH : BATCH;
    for (;;) {
      const notices = await takeDeliveries(this.#options.db, webhook.name, LEASE_SECONDS, limit);
      // All of them, also where the store fails for one: the lane is not free, and not stopped, while a message is on its way.
      const outcomes = await Promise.allSettled(notices.map((notice) => this.#tell(webhook, notice, failures)));
      const failed = outcomes.find((one) => one.status === 'rejected');
      if (failed !== undefined) throw new Error('what became of a message is not recorded', { cause: failed.reason });
      const more = notices.length === BATCH && outcomes.every((one) => one.status === 'fulfilled' && one.value);
      if (!more || this.#stop.signal.aborted) return;
    }
  }

  /** Whether it was taken. */
  async #tell(webhook: Webhook, notice: Notice, failures: number): Promise<boolean> {
    const { db, observer, random, log } = this.#options;
    const { name } = webhook;
    step('tell-webhook.before');
    const sent = await this.#send(webhook, notice);
    step('tell-webhook.after');
    if (sent.outcome === 'taken') {
      await markDelivered(db, name, notice.eventId);
      observer.delivered(name, 'delivered', 1);
      return true;
    }
    const { error } = sent;
    // Cut off by our own end: it is sent again once its lease is over.
    if (this.#stop.signal.aborted) return false;
    observer.delivered(name, 'failed', 1);
    log({ webhook: name, event_id: notice.eventId, attempts: notice.attempts, error }, 'a webhook was not told');
    if (sent.outcome === 'gone') await disableWebhook(db, name, error);
    const asked = sent.outcome === 'gone' ? 0 : sent.retryAfterSeconds;
    const delay = (times: number, longest: number) =>
      Math.max(asked, Math.min(longest, FIRST_SECONDS * 2 ** Math.min(times - 1, 20)) * (0.5 + random() / 2));
    await markNotTaken(db, name, notice, {
      error,
      retrySeconds: delay(notice.attempts, LONGEST_RETRY_SECONDS),
      // Of one message that it does not like it says nothing about others.
      holdSeconds: /^http_4(?!08|29)/.test(error) ? 0 : delay(failures + 1, LONGEST_HOLD_SECONDS),
      failures: failures + 1,
    });
    return false;
  }

  async #send(webhook: Webhook, notice: Notice): Promise<Sent> {
    const given = this.#given(webhook);
    if (typeof given === 'string') return { outcome: 'failed', error: given, retryAfterSeconds: 0 };
    const { format, addresses, dev } = webhook;
    const { secrets, url } = given;
    const message = webhookMessage(notice, { format, secrets, now: new Date(), url: this.#options.url });
    return await sendWebhook(url, message, reachable(addresses, dev), within(SEND_MILLIS, this.#stop.signal));
  }

  /** What its references lead to, anew at each message: a rotated file counts from then on. Or what is wrong with that. */
  #given(webhook: Webhook): { readonly url: URL; readonly secrets: readonly Secret<string>[] } | string {
    const { secret, log } = this.#options;
    const resolve = (reference: string) => secret(webhookOwner(webhook.name), reference);
    try {
      const url = /^(env|file):/.test(webhook.url) ? resolve(webhook.url) : new Secret(webhook.url);
      const secrets = webhook.secrets.map(resolve);
      if (webhookUrlFault(url.reveal(), webhook.dev) !== undefined) return 'url_invalid';
      if (secrets.some((one) => !webhookSecretPattern.test(one.reveal()))) return 'secret_invalid';
      return { url: new URL(url.reveal()), secrets };
    } catch (error) {
      log({ webhook: webhook.name, error }, 'a reference of a webhook leads nowhere');
      return 'secret_missing';
    }
  }

  async #tidy(): Promise<void> {
    if (performance.now() - this.#tidiedAt < TIDY_MILLIS) return;
    const { db, observer, log } = this.#options;
    // Also where it fails: a store in trouble is not asked for it each second.
    this.#tidiedAt = performance.now();
    let more = true;
    while (more && !this.#stop.signal.aborted) {
      const givenUp = await giveUpDeliveries(db, TRIED_SECONDS, TIDY_BATCH);
      for (const [webhook, count] of givenUp) {
        observer.delivered(webhook, 'given_up', count);
        log({ webhook, count }, 'a webhook was never told: given up');
      }
      more = [...givenUp.values()].reduce((sum, count) => sum + count, 0) >= TIDY_BATCH;
    }
    more = true;
    while (more && !this.#stop.signal.aborted) {
      more = (await forgetDeliveries(db, DELIVERED_KEPT_SECONDS, GIVEN_UP_KEPT_SECONDS, TIDY_BATCH)) >= TIDY_BATCH;
    }
  }
}
