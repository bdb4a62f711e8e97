import { type Agent, request } from 'node:https';
import { text } from 'node:stream/consumers';
import type { TestCertificate } from '../../src/identity/testing/svids.ts';
import { type AskOptions, parseBody, type Reply } from './ask.ts';

export interface AskTlsOptions extends AskOptions {
  /** PEM of the authority by which the broker is believed. */
  readonly ca: string;
  /** What is shown: the caller's own certificate first. */
  readonly shown?: readonly Pick<TestCertificate, 'cert' | 'key'>[];
  /** For calls over one connection. */
  readonly agent?: Agent;
}

/** One HTTPS request, by mutual TLS where certificates are shown. */
export async function askTls(base: string, method: string, path: string, options: AskTlsOptions): Promise<Reply> {
  const { hostname, port } = new URL(base);
  const { body, token, ca, shown = [], agent = false } = options;
  const bytes = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
  const headers = {
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    ...(bytes === undefined ? {} : { 'content-type': 'application/json' }),
    ...options.headers,
  };
  const [own] = shown;
  const proven = own === undefined ? {} : { cert: shown.map(({ cert }) => cert).join(''), key: own.key };
  return await new Promise((resolve, reject) => {
    request({ hostname, port, method, path, headers, ca, agent, ...proven }, (response) => {
      text(response).then((all) => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text: all, body: parseBody(all) });
      }, reject);
    })
      .on('error', reject)
      .end(bytes);
  });
}
