import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Secret } from '../../src/domain/secret.ts';
import { signature } from '../../src/revocation/webhook-message.ts';

/** A message as it came. */
export interface Received {
  readonly path: string;
  readonly id: string;
  readonly signatures: readonly string[];
  readonly timestamp: string;
  readonly body: string;
  readonly type: unknown;
}

export interface WebhookReceiver {
  readonly url: string;
  readonly received: Received[];
  /** What is answered to the next ones: a status, or whatever is done with the answer. */
  answer: number | ((response: ServerResponse) => void);
  stop(): void;
}

/** Somebody who is told by webhooks. */
export async function startReceiver(): Promise<WebhookReceiver> {
  const received: Received[] = [];
  const server: Server = createServer((request, response) => {
    const header = (name: string) => String(request.headers[name] ?? '');
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString();
      const parsed: unknown = JSON.parse(body);
      received.push({
        ...{ path: request.url ?? '', id: header('webhook-id'), timestamp: header('webhook-timestamp'), body },
        signatures: header('webhook-signature').split(' '),
        type: typeof parsed === 'object' && parsed !== null && 'type' in parsed ? parsed.type : undefined,
      });
      const { answer } = receiver;
      if (typeof answer === 'function') answer(response);
      else response.writeHead(answer).end('whatever it says');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const receiver: WebhookReceiver = {
    ...{ url: `http://127.0.0.1:${port}/hook`, received, answer: 204 },
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
  return receiver;
}

/** Whether one of the message's signatures is by this secret, of now: what a receiver checks. */
export function isSignedBy(secret: string, { id, timestamp, body, signatures }: Received): boolean {
  const fresh = Math.abs(Date.now() / 1000 - Number(timestamp)) < 300;
  return fresh && signatures.includes(signature(new Secret(secret), id, timestamp, body));
}
