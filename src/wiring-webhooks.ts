import type { ActiveCatalog } from './catalog/active.ts';
import type { SecretResolver } from './catalog/secrets.ts';
import type { Config } from './config.ts';
import type { Logger } from './http/log.ts';
import type { Metrics } from './metrics.ts';
import { WebhookLanes } from './revocation/webhook-lanes.ts';
import { Webhooks } from './revocation/webhooks.ts';
import type { Database } from './store/database.ts';

export interface WebhookParts {
  readonly config: Config;
  readonly db: Database;
  readonly catalog: Pick<ActiveCatalog, 'current' | 'ready'>;
  readonly secret: SecretResolver;
  readonly observer: Metrics;
  readonly log: Logger;
}

/** What tells others: the webhook of the settings, and those that the catalog declares. */
export function wireWebhooks({ config, db, catalog, secret, observer, log }: WebhookParts): {
  start(): void;
  stop(): Promise<void>;
} {
  const common = {
    ...{ db, observer, random: Math.random },
    log: (event: Readonly<Record<string, unknown>>, message: string) => log.warn(event, message),
  };
  const { webhook_url: url, webhook_secret: own } = config;
  const endpoint = url === undefined || own === undefined ? undefined : { url, secret: own };
  const one = new Webhooks({ ...common, endpoint });
  const declared = new WebhookLanes({
    ...{ ...common, secret, url: config.public_url },
    webhooks: () => (catalog.ready ? catalog.current().catalog.webhooks : []),
  });
  return {
    start: () => {
      one.start();
      declared.start();
    },
    stop: async () => {
      await Promise.all([one.stop(), declared.stop()]);
    },
  };
}
