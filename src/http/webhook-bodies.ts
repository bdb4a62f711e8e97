import { z } from 'zod';
import { time } from './answers.ts';

// What operators are answered about webhooks.

export const webhookPath = z.object({
  id: z.string().meta({ description: 'The webhook’s name in the catalog.', example: 'oncall' }),
});

const webhookView = z
  .strictObject({
    name: z.string(),
    format: z.enum(['standard', 'slack']),
    events: z.array(z.string()),
    targets: z.array(z.string()).nullable().meta({ description: 'Null: whatever it is about.' }),
    state: z.enum(['ok', 'failing', 'disabled']).meta({
      description:
        '`failing`: it did not take the last that was sent. `disabled`: it answered 410, and is told nothing until another catalog revision is applied.',
    }),
    pending: z.int().meta({ description: 'What it is still to be told.' }),
    oldest_pending_at: time.optional(),
    given_up: z.int().meta({ description: 'What it was never told, in the last thirty days.' }),
    last_success_at: time.optional(),
    failing_since: time.optional(),
    last_error: z.string().optional().meta({
      description: 'A word: `http_500`, `timeout`, `connection`, `dns`, `tls`, `address_refused`, `secret_missing`.',
    }),
    last_error_at: time.optional(),
    not_before: time.optional().meta({ description: 'It is told nothing sooner.' }),
  })
  .meta({ id: 'Webhook' });

export const webhooksBody = z.strictObject({ items: z.array(webhookView) }).meta({ id: 'Webhooks' });

export const webhookTestBody = z
  .strictObject({
    webhook: z.string(),
    webhook_id: z.string().meta({ description: 'The `webhook-id` that its receiver sees.' }),
    state: z.enum(['pending', 'delivered', 'given_up']),
    attempts: z.int(),
    last_error: z.string().optional(),
  })
  .meta({ id: 'WebhookTest' });

export type WebhookView = z.output<typeof webhookView>;
