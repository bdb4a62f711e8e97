import { Counter, Gauge, type Registry } from 'prom-client';

/** What telling the webhooks of the catalog tells. */
export interface WebhookMetrics {
  delivered(webhook: string, outcome: 'delivered' | 'failed' | 'given_up', count: number): void;
}

/** What the store says of one. */
export interface WebhookSeen {
  readonly name: string;
  readonly pending: number;
  readonly givenUp: number;
  /** Since its last success, or since it wanted no more; 0: it is well. */
  readonly failingSeconds: number;
}

export function createWebhookMetrics(registers: Registry[]): {
  readonly tell: WebhookMetrics;
  /** @param seen Undefined: the store did not say, and nothing is shown. */
  show(seen: readonly WebhookSeen[] | undefined): void;
} {
  const labelNames = ['webhook'];
  const attempts = new Counter({
    name: 'mayfly_webhook_attempts_total',
    help: 'Messages to the webhooks of the catalog: delivered, failed and to be sent again, or given up after three days.',
    labelNames: ['webhook', 'outcome'],
    registers,
  });
  const pending = new Gauge({
    name: 'mayfly_webhook_pending',
    help: 'What a webhook is still to be told.',
    labelNames,
    registers,
  });
  const givenUp = new Gauge({
    name: 'mayfly_webhook_given_up',
    help: 'What a webhook was never told, in the last thirty days.',
    labelNames,
    registers,
  });
  const failing = new Gauge({
    name: 'mayfly_webhook_failing_seconds',
    help: 'How long a webhook has taken nothing that was sent to it; 0 when it took the last.',
    labelNames,
    registers,
  });
  return {
    tell: { delivered: (webhook, outcome, count) => attempts.inc({ webhook, outcome }, count) },
    show: (seen) => {
      for (const gauge of [pending, givenUp, failing]) gauge.reset();
      for (const { name: webhook, ...one } of seen ?? []) {
        pending.set({ webhook }, one.pending);
        givenUp.set({ webhook }, one.givenUp);
        failing.set({ webhook }, one.failingSeconds);
        // An increase is seen only of what was there before it.
        for (const outcome of ['delivered', 'failed', 'given_up']) attempts.inc({ webhook, outcome }, 0);
      }
    },
  };
}
