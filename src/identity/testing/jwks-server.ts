import { createServer, type RequestListener } from 'node:http';
import type { TestKey } from './keys.ts';

/** A JWKS server on loopback that answers as it is told, well or badly. */
export interface JwksServer {
  readonly url: string;
  /** Paths asked for, in order. */
  readonly asked: readonly string[];
  answer(listener: RequestListener): void;
  serve(...keys: readonly TestKey[]): void;
  close(): Promise<void>;
}

export async function startJwksServer(): Promise<JwksServer> {
  const asked: string[] = [];
  let current: RequestListener = (_request, response) => void response.writeHead(500).end();
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    current(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    url: `http://127.0.0.1:${address.port}/jwks`,
    asked,
    answer(listener) {
      current = listener;
    },
    serve(...keys) {
      const body = JSON.stringify({ keys: keys.map(({ jwk }) => jwk) });
      current = (_request, response) => void response.writeHead(200, { 'content-type': 'application/json' }).end(body);
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
