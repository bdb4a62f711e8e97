import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import type { Faults } from './driver.ts';

/** An address that leads to a system, and misbehaves when it is told to. */
export interface FaultyTcp extends Required<Faults> {
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

interface Held {
  /** Pieces that pass before it. */
  after: number;
  readonly reach: () => void;
  readonly released: Promise<void>;
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
  let held: Held | undefined;
  const sockets = new Set<Socket>();
  const cut = (): void => {
    for (const socket of sockets) socket.destroy();
  };

  const server = createServer((client) => {
    sockets.add(client);
    client.on('error', () => {}).on('close', () => sockets.delete(client));
    if (mode === 'refuse') {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(target, '127.0.0.1');
    sockets.add(upstream);
    upstream.on('error', () => {}).on('close', () => sockets.delete(upstream));
    // Pieces go one after another, whatever each had to wait for.
    let inOrder = Promise.resolve();
    let lost = false;
    let over = false;
    client.on('data', (piece: Buffer) => {
      if (mode === 'hang') lost = true;
      if (mode === 'garble') client.end(garbage);
      if (lost || mode === 'garble') return;
      const stop = held !== undefined && held.after === 0 ? held : undefined;
      if (stop !== undefined) held = undefined;
      else if (held !== undefined) held.after -= 1;
      inOrder = inOrder.then(async () => {
        stop?.reach();
        await stop?.released;
        upstream.write(piece);
      });
    });
    upstream.on('data', (piece: Buffer) => {
      if (mode === 'hang') lost = true;
      if (!lost) setTimeout(() => client.writable && client.write(piece), wait);
    });
    // What was taken from a client that hung up still arrives: it is on the way.
    client.on('close', () => {
      over = true;
      void inOrder.then(() => upstream.end());
    });
    upstream.on('close', () => over || setTimeout(() => client.destroy(), wait));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');

  return {
    host: '127.0.0.1',
    port: address.port,
    hang: () => {
      mode = 'hang';
    },
    refuse: () => {
      mode = 'refuse';
      cut();
    },
    slow: (millis) => {
      wait = millis;
    },
    garble: () => {
      mode = 'garble';
    },
    hold: (after) => {
      let reach = () => {};
      let release = () => {};
      const reached = new Promise<void>((resolve) => {
        reach = resolve;
      });
      const released = new Promise<void>((resolve) => {
        release = resolve;
      });
      held = { after, reach, released };
      return { reached, release };
    },
    heal: () => {
      mode = 'pass';
      wait = 0;
      held = undefined;
    },
    lead: (port) => {
      target = port;
      cut();
    },
    close: async () => {
      const closed = once(server, 'close');
      server.close();
      cut();
      await closed;
    },
  };
}
