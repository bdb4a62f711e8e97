import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { freePort } from './free-port.ts';

/** What a RabbitMQ is to an engine of Vault: its users, over HTTP. It can be slow, and refuse, as a real one can not be told to. */
export interface FakeRabbitmq {
  readonly url: string;
  /** Names and passwords. Whoever is here gets in. */
  readonly users: ReadonlyMap<string, string>;
  /** From here on a user is made only when `release` is called. @returns when one is waiting to be made. */
  hold(): Promise<void>;
  release(): void;
  /** Whether it takes a user away when it is told to. */
  removes: boolean;
  /** Takes all users away, without being told to. */
  empty(): void;
  close(): Promise<void>;
}

export async function startFakeRabbitmq(): Promise<FakeRabbitmq> {
  const users = new Map<string, string>();
  let held: { readonly reached: () => void; readonly released: Promise<void> } | undefined;
  let letGo = (): void => {};
  const port = await freePort();
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    let body = '';
    for await (const piece of request) body += String(piece);
    const user = /^\/api\/users\/([^/]+)/.exec(request.url ?? '')?.[1];
    if (request.method === 'PUT' && user !== undefined) {
      held?.reached();
      await held?.released;
      const password: unknown = JSON.parse(body).password;
      users.set(user, String(password));
      response.statusCode = 201;
    } else if (request.method === 'DELETE' && user !== undefined) {
      response.statusCode = fake.removes ? 204 : 500;
      if (fake.removes) users.delete(user);
    }
    response.end(response.statusCode === 204 ? undefined : '{}');
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', () => resolve()));
  const fake: FakeRabbitmq = {
    url: `http://127.0.0.1:${port}`,
    users,
    removes: true,
    empty: () => users.clear(),
    hold: () =>
      new Promise((reached) => {
        const released = new Promise<void>((resolve) => {
          letGo = resolve;
        });
        held = { reached, released };
      }),
    release: () => {
      held = undefined;
      letGo();
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return fake;
}
