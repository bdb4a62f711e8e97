import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { inspect } from 'node:util';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { ProviderError } from '../../src/provider.ts';
import { type Ask, Node } from './client.ts';
import { Nodes } from './nodes.ts';

interface Recorded {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

const servers: Server[] = [];
const TOKEN = 's.AAAABBBBCCCCDDDDEEEEFFFF';
const SECRET = 'a-value-that-nobody-may-see';

/** An HTTP server that keeps what it was sent, and answers as it is told. */
async function recording(answer: (response: ServerResponse, request: Recorded) => void) {
  const seen: Recorded[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (piece: Buffer) => (body += piece.toString()));
    request.on('end', () => {
      const recorded = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body };
      seen.push(recorded);
      answer(response, recorded);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  servers.push(server);
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, seen, server };
}

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

const options = { namespace: undefined, ca: () => undefined, connectMillis: 1000, totalMillis: 5000 };
const write = (over: Partial<Ask> = {}): Ask => ({
  ...{ method: 'POST', path: 'auth/token/create/mayfly', data: { password: SECRET }, token: TOKEN },
  signal: AbortSignal.timeout(20_000),
  ...over,
});

async function failed(work: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  return (await work.then(
    () => expect.unreachable('it was a success'),
    (error: unknown) => error,
  )) as Error & Record<string, unknown>;
}

/** As a log would have it, hidden members and all. */
function expectNoSecret(error: unknown): void {
  const text = inspect(error, { depth: 20, showHidden: true }) + JSON.stringify(error);
  for (const secret of [TOKEN, SECRET]) expect(text).not.toContain(secret);
}

describe('one call to a node', () => {
  test('it sends what it is told, and nothing that the environment says', async () => {
    vi.stubEnv('VAULT_TOKEN', 'of-the-environment');
    vi.stubEnv('VAULT_NAMESPACE', 'of-the-environment');
    vi.stubEnv('VAULT_PREFIX', '/of-the-environment');
    vi.stubEnv('VAULT_ADDR', 'http://127.0.0.1:1');
    const { url, seen } = await recording((response) => response.end('{"data":{}}'));
    const node = new Node(url, { ...options, namespace: 'teams/red' });
    await node.ask(write({ wrap: 60 }));
    await node.ask({ method: 'LIST', path: 'auth/token/accessors', signal: AbortSignal.timeout(5000) });
    await node.ask({ method: 'GET', path: 'sys/health', signal: AbortSignal.timeout(5000) });
    expect(seen.map(({ method, url: path }) => `${method} ${path}`)).toEqual([
      'POST /v1/auth/token/create/mayfly',
      'GET /v1/auth/token/accessors?list=1',
      'GET /v1/sys/health',
    ]);
    const [made, listed, health] = seen;
    expect(made?.headers).toMatchObject({
      ...{ 'x-vault-token': TOKEN, 'x-vault-namespace': 'teams/red', 'x-vault-wrap-ttl': '60s' },
      'x-vault-request': 'true',
    });
    expect(JSON.parse(made?.body ?? '')).toEqual({ password: SECRET });
    expect(listed?.headers).not.toHaveProperty('x-vault-token');
    expect(health?.headers).not.toHaveProperty('x-vault-namespace');
    expect(JSON.stringify(seen)).not.toContain('of-the-environment');
  });

  test('a redirect to another origin is not followed', async () => {
    const elsewhere = await recording((response) => response.end('{}'));
    const { url } = await recording((response) => response.writeHead(307, { location: elsewhere.url }).end());
    const error = await failed(new Node(url, options).ask(write()));
    expect(error).toMatchObject({ errorClass: 'retryable', wholeTarget: true });
    expect(elsewhere.seen).toEqual([]);
    expectNoSecret(error);
  });

  test('no error holds the token or what was sent', async () => {
    const closed = await recording(() => {});
    closed.server.close();
    const cut = await recording((response) => response.destroy());
    const html = await recording((response) => response.end('<html>'));
    for (const { url } of [closed, cut, html]) expectNoSecret(await failed(new Node(url, options).ask(write())));
  });

  test('one that does not answer is given up, at its time-out and by the caller’s signal', async () => {
    const { url } = await recording(() => {});
    const began = performance.now();
    expect(await failed(new Node(url, { ...options, totalMillis: 100 }).ask(write()))).toMatchObject({ sent: true });
    const stop = new AbortController();
    const asking = failed(new Node(url, options).ask(write({ signal: stop.signal })));
    stop.abort();
    expect(await asking).toMatchObject({ errorClass: 'retryable' });
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test('an answer that began and does not end is given up too', async () => {
    const { url } = await recording((response) => response.write('{"data":'));
    expect(await failed(new Node(url, { ...options, totalMillis: 100 }).ask(write()))).toMatchObject({ sent: true });
  });

  test('202 is an answer like any other, and no success of its own', async () => {
    const { url } = await recording((response) => response.writeHead(202).end());
    expect(await new Node(url, options).ask(write())).toMatchObject({ status: 202, body: null });
  });

  test('an answer without end is cut off', async () => {
    const piece = Buffer.alloc(1 << 20, ' ');
    const { url } = await recording((response) => {
      const more = (): void => {
        while (response.write(piece));
        response.once('drain', more);
      };
      more();
    });
    expect((await failed(new Node(url, options).ask(write()))).message).toMatch(/no end/);
  });

  test('what is no JSON is no answer', async () => {
    const { url } = await recording((response) => response.end('<p>It works!</p>'));
    expect((await failed(new Node(url, options).ask(write()))).message).toMatch(/not JSON/);
  });

  test('node-vault prints nothing of it', async () => {
    vi.stubEnv('DEBUG', 'node-vault');
    const printed = vi.spyOn(process.stderr, 'write');
    const { url } = await recording((response) => response.end('{}'));
    await new Node(url, options).ask(write());
    expect(JSON.stringify(printed.mock.calls)).not.toContain(SECRET);
  });
});

describe('several nodes', () => {
  const health = (status: number) =>
    recording((response, { url }) => response.writeHead(url.startsWith('/v1/sys/health') ? status : 200).end('{}'));

  test('the active one is preferred; when it goes another is asked', async () => {
    const [standby, active] = [await health(429), await health(200)];
    const nodes = new Nodes([standby.url, active.url], options);
    await nodes.ask(write(), false);
    expect(active.seen.map(({ method }) => method)).toEqual(['GET', 'POST']);
    expect(standby.seen.map(({ method }) => method)).toEqual(['GET']);
    active.server.closeAllConnections();
    active.server.close();
    await nodes.ask(write(), true);
    expect(standby.seen.at(-1)?.method).toBe('POST');
  });

  test('what may have been done is not done again elsewhere, unless it may be', async () => {
    const other = await health(200);
    const cut = await recording((response, { method }) =>
      method === 'GET' ? response.writeHead(200).end('{}') : response.destroy(),
    );
    const nodes = new Nodes([cut.url, other.url], options);
    expect(await failed(nodes.ask(write(), false))).toMatchObject({ sent: true });
    expect(other.seen.map(({ method }) => method)).not.toContain('POST');
    await nodes.ask(write(), true);
    expect(other.seen.map(({ method }) => method)).toContain('POST');
  });

  test('a balancer’s 503 does not tell that nothing was done', async () => {
    const other = await health(200);
    for (const body of ['', '{"message":"no backend"}']) {
      const balancer = await recording((response, { method }) =>
        response.writeHead(method === 'GET' ? 200 : 503).end(method === 'GET' ? '{}' : body),
      );
      const nodes = new Nodes([balancer.url, other.url], options);
      expect(await failed(nodes.ask(write(), false))).toMatchObject({ sent: true, errorClass: 'retryable' });
      expect(other.seen.map(({ method }) => method)).not.toContain('POST');
    }
  });

  test('certificates that are not there are said to be so', async () => {
    const { url } = await health(200);
    const ca = (): string => {
      throw new ProviderError('misconfigured', 'file:ca.pem is not there');
    };
    const error = await failed(new Nodes([url], { ...options, ca }).ask(write(), true));
    expect(error).toMatchObject({ errorClass: 'misconfigured', message: 'file:ca.pem is not there' });
  });

  test('a sealed one is passed by, and it is said when all are', async () => {
    const sealed = await recording((response) => response.writeHead(503).end('{"errors":["Vault is sealed"]}'));
    const open = await health(200);
    expect((await new Nodes([sealed.url, open.url], options).ask(write(), false)).status).toBe(200);
    const error = await failed(new Nodes([sealed.url], options).ask(write(), true));
    expect(error).toMatchObject({ errorClass: 'retryable', wholeTarget: true });
    expect(error.message).toMatch(/sealed/);
  });
});
