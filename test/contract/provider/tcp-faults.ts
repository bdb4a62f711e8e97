import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { Faults, Held, Lie, Way } from './driver.ts';

/** An address that leads to a system, and misbehaves when it is told to. */
export interface FaultyTcp extends Omit<Required<Faults>, 'apart' | 'lies'>, Omit<Way, 'connection'> {
  readonly host: string;
  readonly port: number;
  hang(): void;
  refuse(): void;
  slow(millis: number): void;
  garble(): void;
  heal(): void;
  /** Leads new connections elsewhere, and ends those that are open. */
  lead(port: number): void;
  close(): Promise<void>;
}

interface Stop {
  /** Pieces that pass before it. */
  after: number;
  readonly reach: () => void;
  readonly released: Promise<void>;
  readonly answer: () => void;
}

/** Looks like an answer to a client of HTTP, and like nothing at all to any other. */
const nonsense =
  'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<p>nonsense ';

/**
 * A TCP proxy on 127.0.0.1 in front of a port of this machine.
 * @param garbage What it answers when it garbles. Default: a web page.
 */
export async function tcpFaults(towards: number, garbage: string | Buffer = nonsense): Promise<FaultyTcp> {
  let mode: 'pass' | 'hang' | 'refuse' | 'garble' = 'pass';
  let wait = 0;
  let target = towards;
  let stop: Stop | undefined;
  let lying: { after: number; readonly lie: Lie } | undefined;
  let pieces = 0;
  const clients = new Set<Socket>();
  const upstreams = new Set<Socket>();
  const cut = (sockets: Iterable<Socket>): void => {
    for (const socket of sockets) socket.destroy();
  };
  const refuse = (): void => {
    mode = 'refuse';
    cut([...clients, ...upstreams]);
  };

  const server = createServer((client) => {
    clients.add(client);
    client.on('error', () => {}).on('close', () => clients.delete(client));
    if (mode === 'refuse') {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(target, '127.0.0.1');
    upstreams.add(upstream);
    upstream.on('error', () => {}).on('close', () => upstreams.delete(upstream));
    // Pieces go one after another, whatever each had to wait for.
    let inOrder = Promise.resolve();
    let lost = false;
    let over = false;
    let answered = (): void => {};
    let owed = Promise.resolve();
    client.on('data', (piece: Buffer) => {
      pieces += 1;
      if (mode === 'hang') lost = true;
      if (mode === 'garble') client.end(garbage);
      if (lost || mode === 'garble') return;
      if (lying !== undefined && lying.after === 0) {
        client.write(lying.lie.answer(piece));
        return;
      }
      if (lying !== undefined) lying.after -= 1;
      const here = stop !== undefined && stop.after === 0 ? stop : undefined;
      if (here !== undefined) stop = undefined;
      else if (stop !== undefined) stop.after -= 1;
      inOrder = inOrder.then(async () => {
        here?.reach();
        await here?.released;
        owed = new Promise((resolve) => {
          answered = resolve;
        });
        if (here !== undefined) void owed.then(here.answer);
        if (upstream.destroyed) answered();
        else upstream.write(piece);
      });
    });
    upstream.on('data', (piece: Buffer) => {
      answered();
      if (mode === 'hang') lost = true;
      if (!lost) setTimeout(() => client.writable && client.write(piece), wait);
    });
    // What was taken from a client that hung up still arrives: it is on the way, and nobody tells the system that it is not waited for.
    client.on('close', () => {
      over = true;
      void inOrder.then(() => owed).then(() => upstream.end());
    });
    upstream.on('close', () => {
      answered();
      if (!over) setTimeout(() => client.destroy(), wait);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');

  return {
    host: '127.0.0.1',
    port: address.port,
    get pieces() {
      return pieces;
    },
    hang: () => {
      mode = 'hang';
    },
    refuse,
    slow: (millis) => {
      wait = millis;
    },
    garble: () => {
      mode = 'garble';
    },
    hold: (after) => {
      const [reached, released, answered] = [signal(), signal(), signal()];
      stop = { after, reach: reached.settle, released: released.settled, answer: answered.settle };
      return { reached: reached.settled, release: released.settle, answered: answered.settled } satisfies Held;
    },
    lie: (lie, after) => {
      lying = { after, lie };
    },
    cut: () => {
      mode = 'refuse';
      cut(clients);
    },
    heal: () => {
      mode = 'pass';
      wait = 0;
      stop = undefined;
      lying = undefined;
    },
    lead: (port) => {
      target = port;
      cut([...clients, ...upstreams]);
    },
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      cut([...clients, ...upstreams]);
      await closed;
    },
  };
}

function signal(): { readonly settled: Promise<void>; readonly settle: () => void } {
  let settle = (): void => {};
  const settled = new Promise<void>((resolve) => {
    settle = resolve;
  });
  return { settled, settle };
}
