import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request, as it is to be sent on. */
export interface Passing {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly body: string;
}

export interface PassingAnswer {
  readonly status: number;
  readonly body: string;
}

export interface Between {
  readonly url: string;
  /** May wait, answer instead, or throw: then the connection is cut. Undefined: it is sent on. */
  before: (request: Passing) => Promise<PassingAnswer | undefined>;
  /** May change what is answered. */
  after: (request: Passing, answer: PassingAnswer) => PassingAnswer;
  /** All that it asked has a line. */
  readonly seen: Passing[];
  close(): Promise<void>;
}

/** An HTTP proxy that a test stands in. It understands each request, unlike what breaks connections. */
export async function startBetween(target: string): Promise<Between> {
  const server = createServer((request, response) => {
    void (async () => {
      let body = '';
      for await (const piece of request) body += String(piece);
      const passing = { method: request.method ?? 'GET', path: request.url ?? '/', body };
      between.seen.push(passing);
      const instead = await between.before(passing);
      const headers = Object.fromEntries(
        Object.entries(request.headers).flatMap(([name, value]) =>
          name.startsWith('x-') && typeof value === 'string' ? [[name, value]] : [],
        ),
      );
      let answer = instead;
      if (answer === undefined) {
        const sent = passing.method === 'GET' || passing.method === 'HEAD' ? {} : { body };
        const received = await fetch(`${target}${passing.path}`, { method: passing.method, headers, ...sent });
        answer = { status: received.status, body: await received.text() };
      }
      const { status, body: text } = between.after(passing, answer);
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(status === 204 ? undefined : text);
    })().catch(() => request.socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const between: Between = {
    url: `http://127.0.0.1:${port}`,
    before: async () => undefined,
    after: (_, answer) => answer,
    seen: [],
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return between;
}
