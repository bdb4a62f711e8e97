import http from 'node:http';
import https from 'node:https';
import { type ErrorClass, ProviderError, within } from '../../src/provider.ts';

/** More than this is no answer of Vault's: its own limit for a request is 32 MB, a list of 500,000 accessors has 14. */
const mostBytes = 16 << 20;

/** One request. */
export interface Sent {
  readonly method: string;
  /** Scheme, host and port. */
  readonly origin: string;
  /** Begins with a slash. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly agent: http.Agent | https.Agent;
  readonly connectMillis: number;
  readonly totalMillis: number;
  readonly signal: AbortSignal;
}

/** One answer, whatever its status but a redirect. */
export interface Received {
  readonly status: number;
  /** Null where there was none. */
  readonly body: unknown;
  /** The server's own clock, in whole seconds. */
  readonly date: Date | null;
}

/** No answer came. Holds neither the request nor what the driver said of it: both have the token. */
export class Unreached extends ProviderError {
  /** It may have had its effect. */
  readonly sent: boolean;
  /** On a connection that stood before: the server may just have closed it. */
  readonly stale: boolean;

  constructor(
    message: string,
    sent: boolean,
    { errorClass = 'retryable', stale = false }: { errorClass?: ErrorClass; stale?: boolean } = {},
  ) {
    super(errorClass, message, { wholeTarget: true });
    this.name = 'Unreached';
    this.sent = sent;
    this.stale = stale;
  }
}

const tlsFailure = /^(ERR_TLS|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|ERR_SSL|EPROTO)/;

/**
 * Sends one request and reads its answer. A redirect is refused, since the token would go where it leads.
 * @throws Unreached when there is no answer, or none that can be believed.
 */
export async function exchange(sent: Sent): Promise<Received> {
  const { origin, path, method, headers, agent, signal } = sent;
  if (signal.aborted) throw new Unreached('it was given up before it was asked', false);
  const limited = within(sent.totalMillis, signal);
  let connected = false;
  const url = new URL(origin + path);
  const send = url.protocol === 'https:' ? https.request : http.request;
  return await new Promise<Received>((resolve, reject) => {
    const request = send(url, { method, headers, agent });
    const fail = (error: Unreached): void => {
      request.destroy();
      limited.removeEventListener('abort', late);
      reject(error);
    };
    const late = (): void => fail(new Unreached('it did not answer in time', connected));
    limited.addEventListener('abort', late, { once: true });
    request.on('socket', (socket) => {
      if (!socket.connecting) {
        connected = true;
        return;
      }
      const slow = setTimeout(() => fail(new Unreached('it can not be reached', false)), sent.connectMillis);
      const ready = url.protocol === 'https:' ? 'secureConnect' : 'connect';
      socket.once(ready, () => {
        connected = true;
        clearTimeout(slow);
      });
      socket.once('close', () => clearTimeout(slow));
    });
    request.on('error', (error) => fail(failure(error, connected, request.reusedSocket)));
    request.on('response', (response) => {
      const status = response.statusCode ?? 0;
      if (status >= 300 && status < 400) {
        const error = new Unreached(
          'it redirects, as a standby does that forwards nothing; that is not followed',
          false,
        );
        return fail(error);
      }
      const pieces: Buffer[] = [];
      let bytes = 0;
      response.on('data', (piece: Buffer) => {
        pieces.push(piece);
        bytes += piece.length;
        if (bytes > mostBytes) fail(new Unreached('its answer has no end', true));
      });
      response.on('error', (error) => fail(failure(error, true, false)));
      response.on('end', () => {
        limited.removeEventListener('abort', late);
        const text = Buffer.concat(pieces).toString('utf8');
        const date = new Date(response.headers.date ?? '');
        try {
          const body: unknown = text.trim() === '' ? null : JSON.parse(text);
          resolve({ status, body, date: Number.isNaN(date.getTime()) ? null : date });
        } catch {
          reject(new Unreached(`its answer (${status}) is not JSON: is something else at this address?`, true));
        }
      });
    });
    request.end(sent.body);
  });
}

function failure(error: Error, connected: boolean, reused: boolean): Unreached {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (tlsFailure.test(code))
    return new Unreached(`it can not be trusted over TLS (${code})`, false, { errorClass: 'misconfigured' });
  return new Unreached(`the connection failed${code === '' ? '' : ` (${code})`}`, connected, { stale: reused });
}
