import { once } from 'node:events';
import { createServer, connect, type Socket } from 'node:net';

/** Long enough for the server to have read a statement. */
const RESET_MILLIS = 10;

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
  /** Connections open now are dead, and neither side learns of it, not even when the other hangs up. New ones pass. */
  halfOpen(): void;
  /** Connections open now are reset by the next thing that their client says, when the server has it and has not answered. New ones pass. */
  resetNext(): void;
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

interface Pair {
  readonly client: Socket;
  readonly upstream: Socket;
  /** What was dropped is gone from the stream: it stays hung. */
  lost: boolean;
  fate: 'none' | 'half-open' | 'reset';
}

/** A TCP proxy on 127.0.0.1 that can misbehave as networks and servers do. */
export async function startTcpProxy(targetPort: number, options: { keepSent?: boolean } = {}): Promise<TcpProxy> {
  let mode: 'pass' | 'black-hole' | 'swallow' = 'pass';
  let wait = 0;
  let towards = targetPort;
  let connections = 0;
  const sent: Buffer[] = [];
  const pairs = new Set<Pair>();

  const server = createServer((client) => {
    connections += 1;
    const pair: Pair = { client, upstream: connect(towards, '127.0.0.1'), lost: false, fate: 'none' };
    pairs.add(pair);
    const pipe = (from: Socket, to: Socket, isAnswer: boolean): void => {
      from.on('data', (piece: Buffer) => {
        if (options.keepSent === true && !isAnswer) sent.push(piece);
        pair.lost ||= pair.fate === 'half-open' || mode === 'black-hole' || (mode === 'swallow' && isAnswer);
        if (pair.lost && (mode !== 'swallow' || isAnswer)) return;
        setTimeout(() => to.writable && to.write(piece), wait);
        if (pair.fate === 'reset' && !isAnswer) {
          pair.lost = true;
          setTimeout(() => void [client, pair.upstream].map((socket) => socket.resetAndDestroy()), wait + RESET_MILLIS);
        }
      });
      from.on('close', () => {
        if (pair.fate === 'half-open') return;
        pairs.delete(pair);
        to.destroy();
      });
      from.on('error', () => {});
    };
    pipe(client, pair.upstream, false);
    pipe(pair.upstream, client, true);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') {
    throw new Error('no port');
  }
  const cut = (): void => {
    for (const { client, upstream } of pairs) {
      client.destroy();
      upstream.destroy();
    }
    pairs.clear();
  };
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
    halfOpen() {
      for (const pair of pairs) pair.fate = 'half-open';
    },
    resetNext() {
      for (const pair of pairs) pair.fate = 'reset';
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
