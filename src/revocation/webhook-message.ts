import { createHmac } from 'node:crypto';
import { wireId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import type { Notice } from '../store/notices.ts';

/** What is sent: Standard Webhooks 1.0.0. */
export interface WebhookMessage {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Members of an event's payload that say how the target looks inside: they stay in the evidence. */
const INSIDE = new Set(['evidence', 'handle']);

/**
 * The signed message that tells of an event. Its id is the event's: sent again, it is the same.
 * @param secret `whsec_` and the key in base64.
 * @param now When it is sent: receivers refuse what is too old.
 */
export function webhookMessage(notice: Notice, secret: Secret<string>, now: Date): WebhookMessage {
  const id = wireId('evt', notice.eventId);
  const timestamp = String(Math.floor(now.getTime() / 1000));
  const body = JSON.stringify({
    // Told only when it had been overdue: to receivers that is another thing.
    type: notice.type === 'revocation.contained' ? 'revocation.contained_late' : notice.type,
    timestamp: notice.ts.toISOString(),
    data: {
      resource: notice.resource,
      agent: notice.agent,
      cause: notice.cause,
      task_id: notice.taskId === null ? null : wireId('task', notice.taskId),
      grant_id: notice.grantId === null ? null : wireId('grt', notice.grantId),
      ...Object.fromEntries(Object.entries(notice.payload).filter(([name]) => !INSIDE.has(name))),
    },
  });
  const key = Buffer.from(secret.reveal().slice('whsec_'.length), 'base64');
  const signature = createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64');
  return {
    headers: {
      'content-type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': timestamp,
      'webhook-signature': `v1,${signature}`,
    },
    body,
  };
}
