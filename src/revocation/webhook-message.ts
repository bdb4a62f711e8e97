import { createHmac } from 'node:crypto';
import { wireId } from '../domain/ids.ts';
import type { Secret } from '../domain/secret.ts';
import type { Notice } from '../store/notices.ts';

/** What is sent. */
export interface WebhookMessage {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Members of an event's payload that say how the target looks inside: they stay in the evidence. */
const INSIDE = new Set(['evidence', 'handle']);

/** Slack's own limit is far above; nobody reads more of one value. */
const MOST_CHARACTERS = 300;

/** `whsec_` and 24 to 64 bytes: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md */
export const webhookSecretPattern = /^whsec_[A-Za-z0-9+/]{32,86}={0,2}$/;

/** What a message says beside the event itself. */
export interface MessageOptions {
  readonly format: 'standard' | 'slack';
  /** `whsec_` and the key in base64. Each signs. */
  readonly secrets: readonly Secret<string>[];
  /** When it is sent: receivers refuse what is too old. */
  readonly now: Date;
  /** Our own name: what the message is about can be read there. Absent: no links. */
  readonly url?: string;
}

/** The message that tells of an event. Its id is the event's: sent again, it is the same. Standard Webhooks 1.0.0. */
export function webhookMessage(notice: Notice, { format, secrets, now, url }: MessageOptions): WebhookMessage {
  const id = wireId('evt', notice.eventId);
  const timestamp = String(Math.floor(now.getTime() / 1000));
  // Contained is told only when it had been overdue: to receivers that is another thing.
  const type = notice.type === 'revocation.contained' ? 'revocation.contained_late' : notice.type;
  const data = { ...dataOf(notice), ...(url === undefined ? {} : linksOf(notice, url)) };
  const body =
    format === 'slack'
      ? JSON.stringify({ text: slackText(type, notice, data), mrkdwn: false })
      : JSON.stringify({ type, timestamp: notice.ts.toISOString(), data });
  return {
    headers: {
      'content-type': 'application/json',
      'webhook-id': id,
      'webhook-timestamp': timestamp,
      ...(secrets.length > 0 && {
        'webhook-signature': secrets.map((secret) => signature(secret, id, timestamp, body)).join(' '),
      }),
    },
    body,
  };
}

/** @param secret `whsec_` and the key in base64. @param timestamp Unix time in seconds. */
export function signature(secret: Secret<string>, id: string, timestamp: string, body: string): string {
  const key = Buffer.from(secret.reveal().slice('whsec_'.length), 'base64');
  return `v1,${createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64')}`;
}

function dataOf(notice: Notice): Readonly<Record<string, unknown>> {
  return {
    resource: notice.resource,
    agent: notice.agent,
    cause: notice.cause,
    task_id: notice.taskId === null ? null : wireId('task', notice.taskId),
    grant_id: notice.grantId === null ? null : wireId('grt', notice.grantId),
    ...Object.fromEntries(Object.entries(notice.payload).filter(([name]) => !INSIDE.has(name))),
  };
}

/** Where to read on, and what to type. Both ask who is asking. */
function linksOf({ taskId, grantId, payload }: Notice, url: string): Readonly<Record<string, string>> {
  const { revocation_id: revocation } = payload;
  if (typeof revocation === 'string')
    return { link: `${url}/v1/revocations/${revocation}`, command: `mayfly revocations show ${revocation}` };
  if (grantId !== null) {
    const grant = wireId('grt', grantId);
    return { link: `${url}/v1/grants/${grant}`, command: `mayfly explain ${grant}` };
  }
  return taskId === null ? {} : { link: `${url}/v1/tasks/${wireId('task', taskId)}/timeline` };
}

/** One line for the event, and one for each thing that is said of it. Nothing in it is markup, whoever wrote it. */
function slackText(type: string, notice: Notice, data: Readonly<Record<string, unknown>>): string {
  const said = Object.entries(data).filter(([, value]) => value !== null && value !== 'none' && value !== '');
  const lines = said.map(([name, value]) => `${name}: ${oneLine(value)}`);
  return escaped([`Mayfly: ${type} at ${notice.ts.toISOString()}`, ...lines].join('\n'));
}

function oneLine(value: unknown): string {
  const text = (typeof value === 'string' ? value : JSON.stringify(value)).replace(/\s+/gu, ' ');
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
}

/** https://docs.slack.dev/messaging/formatting-message-text: these three characters, and no others. */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}
