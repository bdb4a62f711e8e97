import { type IncomingHttpHeaders, request } from 'node:http';
import { connect } from 'node:net';
import { text } from 'node:stream/consumers';

export interface AskOptions {
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** An object goes as JSON, a string or bytes as they are. */
  readonly body?: unknown;
  readonly token?: string;
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** Parsed, if it is JSON. */
  readonly body: Record<string, unknown>;
}

/** One HTTP request. By `node:http`: `fetch` lets nobody choose Host, or send a body that is not whole. */
export async function ask(base: string, method: string, path: string, options: AskOptions = {}): Promise<Reply> {
  const { hostname, port } = new URL(base);
  const { body } = options;
  const bytes =
    body === undefined ? undefined : typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const headers = {
    ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
    ...(bytes === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(bytes) }),
    ...options.headers,
  };
  return await new Promise((resolve, reject) => {
    const asked = request({ hostname, port, method, path, headers, agent: false }, (response) => {
      text(response).then((all) => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text: all, body: parseBody(all) });
      }, reject);
    });
    asked.on('error', reject);
    asked.end(bytes);
  });
}

/** Sends these bytes and answers all that comes back until the other side closes. */
export async function askRaw(base: string, bytes: string): Promise<string> {
  const { hostname, port } = new URL(base);
  const socket = connect(Number(port), hostname);
  socket.write(bytes);
  return await text(socket);
}

export function parseBody(all: string): Record<string, unknown> {
  try {
    return { ...Object(JSON.parse(all)) };
  } catch {
    return {};
  }
}
