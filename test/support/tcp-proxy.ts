import { once } from 'node:events';
import { createServer, connect, type Socket } from 'node:net';

export interface TcpProxy {
  readonly host: string;
  readonly port: number;
  /** Connections taken so far. */
  readonly connections: number;
  /** All that clients have sent so far, when it is kept. */
  sent(): Buffer;
  /** From now on nothing passes in either direction, also on open connections: a target that hangs. New ones are taken and hang. */
  blackHole(): void;
  /** From now on the server's answers are kept back; what clients send still arrives. A statement takes effect and its answer is lost. */
  swallowAnswers(): void;
  /** Each piece passes so many milliseconds later. */
  delay(milliseconds: number): void;
  /** Lets all pass again on new connections; those that hung stay as they are. */
  heal(): void;
  /** Leads new connections elsewhere: another server behind the right name. */
  retarget(port: number): void;
  /** Ends all open connections at once. */
  cut(): void;
  close(): Promise<void>;
}

/** A TCP proxy on 127.0.0.1 that can misbehave as networks and servers do. */
export async function startTcpProxy(targetPort: number, options: { keepSent?: boolean } = {}): Promise<TcpProxy> {
  let mode: 'pass' | 'black-hole' | 'swallow' = 'pass';
  let wait = 0;
  let towards = targetPort;
  let connections = 0;
  const sent: Buffer[] = [];
  const sockets = new Set<Socket>();

  const server = createServer((client) => {
    connections += 1;
    const upstream = connect(towards, '127.0.0.1');
    // A pair that hung once stays hung: what was dropped is gone from the stream.
    let lost = false;
    const pipe = (from: Socket, to: Socket, isAnswer: boolean): void => {
      sockets.add(from);
      from.on('data', (piece: Buffer) => {
        if (options.keepSent === true && !isAnswer) sent.push(piece);
        lost ||= mode === 'black-hole' || (mode === 'swallow' && isAnswer);
        if (!lost || (mode === 'swallow' && !isAnswer)) {
          setTimeout(() => to.writable && to.write(piece), wait);
        }
      });
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      from.on('error', () => {});
    };
    pipe(client, upstream, false);
    pipe(upstream, client, true);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') {
    throw new Error('no port');
  }
  const cut = (): void => sockets.forEach((socket) => void socket.destroy());
  return {
    host: '127.0.0.1',
    port: address.port,
    get connections() {
      return connections;
    },
    sent: () => Buffer.concat(sent),
    blackHole() {
      mode = 'black-hole';
    },
    swallowAnswers() {
      mode = 'swallow';
    },
    delay(milliseconds) {
      wait = milliseconds;
    },
    heal() {
      mode = 'pass';
      wait = 0;
    },
    retarget(port) {
      towards = port;
    },
    cut,
    async close() {
      const closed = once(server, 'close');
      server.close();
      cut();
      await closed;
    },
  };
}
