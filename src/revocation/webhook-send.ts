import http from 'node:http';
import https from 'node:https';
import { isIP } from 'node:net';
import { type MayReach, pinnedLookup, REFUSED_ADDRESS } from './webhook-address.ts';
import type { WebhookMessage } from './webhook-message.ts';

/** What became of one message. `error` is one of a few words: nothing that the receiver said. */
export type Sent =
  | { readonly outcome: 'taken' }
  /** 410: it wants no more. */
  | { readonly outcome: 'gone'; readonly error: string }
  | { readonly outcome: 'failed'; readonly error: string; readonly retryAfterSeconds: number };

/** A receiver may put us off for so long, and no longer. */
const LONGEST_HOLD_SECONDS = 6 * 3600;

/**
 * Sends one message, and looks at the status alone: what the answer holds is not read. Follows nothing. Ends with the signal.
 * Each connection is its own, to an address that was looked at.
 */
export async function sendWebhook(
  url: URL,
  { headers, body }: WebhookMessage,
  mayReach: MayReach,
  signal: AbortSignal,
): Promise<Sent> {
  const host = url.hostname.replace(/^\[|\]$/g, '');
  // A name is looked up, and looked at then; an address is connected to as it stands.
  if (isIP(host) !== 0 && !mayReach(host)) return failed('address_refused');
  return await new Promise<Sent>((resolve) => {
    const request = (url.protocol === 'https:' ? https : http).request(url, {
      method: 'POST',
      headers: { ...headers, 'content-length': Buffer.byteLength(body), 'user-agent': 'mayfly' },
      agent: false,
      lookup: pinnedLookup(mayReach),
      signal,
    });
    request.on('response', (response) => {
      resolve(judge(response.statusCode ?? 0, response.headers['retry-after']));
      response.on('error', () => {});
      response.destroy();
    });
    request.on('error', (error) => resolve(failed(signal.aborted ? reasonOf(signal) : wordFor(error))));
    request.on('close', () => resolve(failed('connection')));
    request.end(body);
  });
}

function judge(status: number, retryAfter: string | undefined): Sent {
  if (status >= 200 && status < 300) return { outcome: 'taken' };
  const error = `http_${status}`;
  if (status === 410) return { outcome: 'gone', error };
  return failed(error, status === 429 || status === 503 ? secondsOf(retryAfter) : 0);
}

function failed(error: string, retryAfterSeconds = 0): Sent {
  return { outcome: 'failed', error, retryAfterSeconds };
}

/** Seconds, or a date (RFC 9110 §10.2.3). What is neither is nothing. */
function secondsOf(text = ''): number {
  const seconds = /^\d{1,9}$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(LONGEST_HOLD_SECONDS, Math.max(0, seconds)) : 0;
}

function reasonOf(signal: AbortSignal): string {
  return signal.reason instanceof Error && signal.reason.name === 'TimeoutError' ? 'timeout' : 'stopped';
}

function wordFor(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (code === REFUSED_ADDRESS) return 'address_refused';
  if (/^(ENOTFOUND|EAI_)/.test(code)) return 'dns';
  if (/CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO|EPROTO/.test(code)) return 'tls';
  return code.startsWith('HPE_') ? 'protocol' : 'connection';
}
