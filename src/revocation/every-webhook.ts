import { WebhookLanes, type WebhookLanesOptions } from './webhook-lanes.ts';
import { Webhooks, type WebhooksOptions } from './webhooks.ts';

/** The webhook of the settings, and those that the catalog declares: started and stopped together. */
export class EveryWebhook {
  readonly #parts: readonly [Webhooks, WebhookLanes];

  constructor(options: WebhooksOptions & WebhookLanesOptions) {
    this.#parts = [new Webhooks(options), new WebhookLanes(options)];
  }

  start(): void {
    for (const part of this.#parts) part.start();
  }

  async stop(): Promise<void> {
    await Promise.all(this.#parts.map(async (part) => await part.stop()));
  }
}
